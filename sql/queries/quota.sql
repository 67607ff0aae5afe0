-- name: lock_quota
SELECT FROM ingest.locks WHERE name = 'geocoder requests' FOR UPDATE

-- name: next_request
-- When the next request may be sent. One that is under way counts as sent now: who knows when it arrives. One that
-- ended counts from its end, and one whose sender died, from when it can no longer be under way.
WITH sent AS (
    SELECT coalesce(ended_at, least(clock_timestamp(), booked_at + %(longest)s)) AS at, is_free
    FROM ingest.geocoder_requests
    WHERE account = %(account)s AND booked_at > clock_timestamp() - interval '1 day' - %(longest)s
)
SELECT clock_timestamp() AS now,
       greatest(
           (SELECT at + interval '1 second' FROM sent ORDER BY at DESC OFFSET %(per_second)s - 1 LIMIT 1),
           (SELECT at + interval '1 minute' FROM sent ORDER BY at DESC OFFSET %(per_minute)s - 1 LIMIT 1),
           (SELECT until FROM ingest.geocoder_pause WHERE account = %(account)s)
       ) AS at,
       (SELECT count(*) FROM sent WHERE NOT is_free AND at >= date_trunc('day', now(), 'UTC')) AS today,
       date_trunc('day', now(), 'UTC') + interval '1 day' AS tomorrow,
       (SELECT reason FROM ingest.geocoder_pause
        WHERE account = %(account)s AND until > clock_timestamp()) AS reason

-- name: book
INSERT INTO ingest.geocoder_requests (account) VALUES (%(account)s) RETURNING request_id

-- name: ended
UPDATE ingest.geocoder_requests SET ended_at = clock_timestamp(), is_free = %(is_free)s
WHERE request_id = %(request_id)s

-- name: pause
-- The longer one stands.
INSERT INTO ingest.geocoder_pause AS known (account, until, reason) VALUES (%(account)s, %(until)s, %(reason)s)
ON CONFLICT (account) DO UPDATE SET until = excluded.until, reason = excluded.reason
WHERE excluded.until > known.until

-- name: lift_pause
UPDATE ingest.geocoder_pause SET until = clock_timestamp() WHERE account = %(account)s AND until > clock_timestamp()

-- name: forget_old
DELETE FROM ingest.geocoder_requests WHERE booked_at < clock_timestamp() - interval '2 days'

-- name: ledger_by_state
-- Of those seen and not decided, some are held back, for a dependency fails them.
SELECT CASE WHEN state <> 'failed' AND held_since IS NOT NULL THEN 'held' ELSE state END AS state, count(*) AS files
FROM ingest.ledger
WHERE (state IN ('seen', 'applied', 'archived', 'failed') OR held_since IS NOT NULL) AND discarded_at IS NULL
  AND NOT (state IN ('seen', 'failed') AND ingest.is_superseded(ledger))
GROUP BY 1

-- name: dead_letters
-- Those that a person has to look at; what a message says of itself is in none of the reasons.
SELECT coalesce(reason, 'unknown') AS reason, count(*) AS files
FROM ingest.ledger
WHERE state = 'failed' AND dead_lettered_at IS NOT NULL AND discarded_at IS NULL AND NOT ingest.is_superseded(ledger)
GROUP BY 1
ORDER BY files DESC, reason
LIMIT 50

-- name: last_files
SELECT key, decision, state, reason, first_seen_by, applied_at, rows_read, rows_inserted, rows_updated, rows_unchanged,
       rows_stale, rows_rejected, lines_read, lines_rejected, dates_never, notes
FROM ingest.ledger
ORDER BY applied_at DESC NULLS LAST, file_id DESC
LIMIT 5

-- name: undeclared_columns
SELECT known.feed, known.name, file.key, known.first_seen_at
FROM ingest.undeclared_columns AS known LEFT JOIN ingest.ledger AS file USING (file_id)
WHERE known.feed = ANY(%(feeds)s)
ORDER BY known.first_seen_at DESC, known.feed, known.name

-- name: lately
-- By the index, so that it costs the same after years.
WITH newest AS (
    SELECT key, applied_at, notes -> 'missing' AS missing, dates_never
    FROM ingest.ledger
    WHERE feed = %(feed)s AND applied_at > now() - make_interval(days => %(days)s)
    ORDER BY applied_at DESC NULLS LAST
    LIMIT 10000
)
SELECT count(*) AS files, count(missing) AS files_without_columns,
       ARRAY(SELECT DISTINCT jsonb_array_elements_text(missing) FROM newest ORDER BY 1) AS missing_columns,
       (SELECT key FROM newest WHERE missing IS NOT NULL ORDER BY applied_at DESC LIMIT 1) AS newest_without,
       coalesce(sum(dates_never), 0)::bigint AS dates_never
FROM newest

-- name: stages
-- How long the newest files took from one stage to the next, in the middle; the written time is that of the store.
SELECT count(*) AS files,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM first_seen_at - object_time)) AS delivered,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM opened_at - first_seen_at)) AS opened,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM staged_at - opened_at)) AS staged,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM applied_at - staged_at)) AS applied,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM archived_at - applied_at)) AS archived,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM done_at - archived_at)) AS done
FROM (SELECT * FROM ingest.ledger ORDER BY applied_at DESC NULLS LAST LIMIT 100) AS newest
WHERE applied_at IS NOT NULL AND first_seen_by IN ('notification', 'poller')

-- name: last_error
-- Failed files, those that a dependency fails, and applied ones that the store does not let us archive.
SELECT key, reason, last_error, attempts, dead_lettered_at
FROM ((SELECT * FROM ingest.ledger
       WHERE (state = 'failed' OR held_since IS NOT NULL) AND discarded_at IS NULL
         AND NOT (state IN ('seen', 'failed') AND ingest.is_superseded(ledger))
       ORDER BY file_id DESC
       LIMIT 1)
      UNION ALL
      (SELECT * FROM ingest.ledger WHERE state = 'applied' AND last_error IS NOT NULL ORDER BY file_id DESC LIMIT 1)
     ) AS newest
ORDER BY file_id DESC
LIMIT 1

-- name: watermark
SELECT metadata->>'source_max_key' AS key, snapshot_at, imported_at, row_count
FROM tickets.import_meta
WHERE source = %(feed)s

-- name: open_requests
SELECT kind, count(*) FILTER (WHERE sent_at IS NULL AND due_at <= now()) AS unsent, count(*) AS unhandled,
       extract(epoch FROM now() - min(greatest(created_at, due_at))
                              FILTER (WHERE sent_at IS NULL AND due_at <= now()))::float8 AS oldest_unsent_seconds
FROM ingest.outbox
WHERE handled_at IS NULL
GROUP BY kind

-- name: ignored_events
SELECT reason, sum(events)::bigint AS events FROM ingest.ignored_events GROUP BY reason ORDER BY reason

-- name: tickets_by_place
-- Where tickets have their place from; NULL is nowhere.
SELECT geo_source AS source, count(*) AS tickets FROM ingest.named_places GROUP BY geo_source ORDER BY tickets DESC

-- name: gazetteer
SELECT kind, status, count(*) AS places
FROM (SELECT 'clusters' AS kind, status FROM tickets.geo_clusters
      UNION ALL
      SELECT 'locations', status FROM tickets.geo_locations) AS known
GROUP BY kind, status
ORDER BY kind, status

-- name: geocoder
SELECT (SELECT count(*) FROM ingest.geocoder_requests
        WHERE account = %(account)s AND NOT is_free AND booked_at >= date_trunc('day', now(), 'UTC')) AS requests,
       pause.until AS paused_until, pause.reason AS paused_by,
       coalesce(pause.until >= date_trunc('day', now(), 'UTC') + interval '1 day', false) AS is_spent
FROM (SELECT 1) AS one
LEFT JOIN ingest.geocoder_pause AS pause ON pause.until > now() AND pause.account = %(account)s

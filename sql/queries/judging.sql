-- name: pace
-- Of the last so many seconds: files that were applied, and those of them that the store got within the same time.
SELECT count(*) AS applied,
       count(*) FILTER (WHERE object_time > now() - make_interval(secs => %(seconds)s)) AS arrived,
       (SELECT extract(epoch FROM clock_timestamp() - applied_at)::float8
        FROM ingest.ledger WHERE applied_at IS NOT NULL ORDER BY applied_at DESC NULLS LAST LIMIT 1) AS applied_seconds
FROM ingest.ledger
WHERE applied_at > now() - make_interval(secs => %(seconds)s)

-- name: rhythm
-- How often the exporter of a feed sends, by the minutes in which it did so within fifteen days, which have two
-- weekends in them. The longest pause is the second one: a single outage is no habit.
WITH newest AS (
    SELECT object_time
    FROM ingest.ledger
    WHERE feed = %(feed)s AND applied_at > now() - interval '15 days' AND first_seen_by <> 'import'
    ORDER BY applied_at DESC NULLS LAST
    LIMIT 20000
), minutes AS (
    SELECT DISTINCT date_trunc('minute', object_time) AS at FROM newest WHERE object_time IS NOT NULL
), pauses AS (
    SELECT extract(epoch FROM at - lag(at) OVER (ORDER BY at))::float8 AS seconds FROM minutes
)
SELECT count(seconds) AS pauses, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS usual_seconds,
       (SELECT seconds FROM pauses WHERE seconds IS NOT NULL ORDER BY seconds DESC OFFSET 1 LIMIT 1) AS longest_seconds,
       (SELECT extract(epoch FROM max(at) - min(at))::float8 FROM minutes) AS span_seconds,
       (SELECT extract(epoch FROM clock_timestamp() - max(object_time))::float8 FROM newest) AS silent_seconds
FROM pauses

-- name: announced
-- Since when no notification was the first to tell of a file, and how many files the poller brought that the store got
-- since then. Nothing of a bucket that announces nothing.
WITH newest AS (
    SELECT file_id, first_seen_by, first_seen_at, object_time FROM ingest.ledger ORDER BY file_id DESC LIMIT 10000
), announced AS (
    SELECT max(first_seen_at) AS at FROM newest WHERE first_seen_by = 'notification'
)
SELECT extract(epoch FROM clock_timestamp() - announced.at)::float8 AS seconds,
       (SELECT count(*) FROM newest WHERE first_seen_by = 'poller' AND object_time > announced.at) AS by_poller
FROM announced
WHERE announced.at > now() - interval '7 days'

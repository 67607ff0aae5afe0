-- name: progress
SELECT count(*) FILTER (WHERE applied_at IS NOT NULL)                         AS applied,
       count(*) FILTER (WHERE state IN ('archived', 'done'))                  AS archived,
       count(*) FILTER (WHERE state = 'done')                                 AS done,
       count(*) FILTER (WHERE dead_lettered_at IS NOT NULL)                   AS dead,
       count(*) FILTER (WHERE first_seen_by = 'poller')                       AS seen_by_poller,
       coalesce(sum(duplicates), 0)::bigint                                   AS duplicates,
       coalesce(sum(rows_read), 0)::bigint                                    AS read,
       coalesce(sum(rows_inserted), 0)::bigint                                AS inserted,
       coalesce(sum(rows_updated), 0)::bigint                                 AS updated,
       coalesce(sum(rows_unchanged), 0)::bigint                               AS unchanged,
       coalesce(sum(rows_stale), 0)::bigint                                   AS stale,
       coalesce(sum(rows_superseded), 0)::bigint                              AS superseded,
       coalesce(sum(rows_rejected), 0)::bigint                                AS rejected,
       coalesce(sum(alarms_dropped), 0)::bigint                               AS alarms,
       coalesce(sum(sentinels_dropped), 0)::bigint                            AS sentinels,
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM applied_at - first_seen_at)::float)
                                                                              AS delivered_to_committed,
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM applied_at - event_time)::float)
                                                                              AS stored_to_committed,
       (SELECT count(*) FROM ingest.outbox WHERE kind = 'history' AND handled_at IS NULL) AS history_open
FROM ingest.ledger
WHERE feed = ANY(%(feeds)s)

-- name: tickets
SELECT * FROM {tickets}

-- name: closures
SELECT * FROM tickets.closure_events

-- name: rejects
SELECT key, line, raw FROM ingest.rejects JOIN ingest.ledger USING (file_id) WHERE feed = %(feed)s

-- name: files
SELECT key, array_agg(state) AS states, array_agg(decision) AS decisions
FROM ingest.ledger
WHERE feed = %(feed)s
GROUP BY key

-- name: files_of_others
SELECT key FROM ingest.ledger WHERE feed <> ALL(%(feeds)s::text[]) ORDER BY key

-- name: backlog_by_day
SELECT json_build_object('series', 'backlog_by_day', 'rows', coalesce(json_agg(found ORDER BY day), '[]'))::text AS body
FROM reporting.backlog_by_day AS found
WHERE (%(from)s::date IS NULL OR day >= %(from)s::date) AND (%(to)s::date IS NULL OR day < %(to)s::date)

-- name: backlog_by_day_and_cluster
-- A gap has no cluster, and is one for each.
SELECT json_build_object('series', 'backlog_by_day_and_cluster',
                         'rows', coalesce(json_agg(found ORDER BY day, cluster COLLATE "C"), '[]'))::text AS body
FROM reporting.backlog_by_day_and_cluster AS found
WHERE (%(from)s::date IS NULL OR day >= %(from)s::date) AND (%(to)s::date IS NULL OR day < %(to)s::date)
  AND (%(cluster)s::text IS NULL OR cluster IS NULL OR lower(cluster) = lower(%(cluster)s))

-- name: created_and_closed_by_day
SELECT json_build_object('series', 'created_and_closed_by_day',
                         'rows', coalesce(json_agg(found ORDER BY day), '[]'))::text AS body
FROM reporting.created_and_closed_by_day AS found
WHERE (%(from)s::date IS NULL OR day >= %(from)s::date) AND (%(to)s::date IS NULL OR day < %(to)s::date)

-- name: created_and_closed_by_week
SELECT json_build_object('series', 'created_and_closed_by_week',
                         'rows', coalesce(json_agg(found ORDER BY week), '[]'))::text AS body
FROM reporting.created_and_closed_by_week AS found
WHERE (%(from)s::date IS NULL OR week >= %(from)s::date) AND (%(to)s::date IS NULL OR week < %(to)s::date)

-- name: mttr_and_sla_by_week
SELECT json_build_object('series', 'mttr_and_sla_by_week',
                         'rows', coalesce(json_agg(found ORDER BY week), '[]'))::text AS body
FROM reporting.mttr_and_sla_by_week AS found
WHERE (%(from)s::date IS NULL OR week >= %(from)s::date) AND (%(to)s::date IS NULL OR week < %(to)s::date)

-- name: mttr_and_sla_by_cluster
SELECT json_build_object('series', 'mttr_and_sla_by_cluster',
                         'rows', coalesce(json_agg(found ORDER BY week, cluster COLLATE "C"), '[]'))::text AS body
FROM reporting.mttr_and_sla_by_cluster AS found
WHERE (%(from)s::date IS NULL OR week >= %(from)s::date) AND (%(to)s::date IS NULL OR week < %(to)s::date)
  AND (%(cluster)s::text IS NULL OR cluster IS NULL OR lower(cluster) = lower(%(cluster)s))

-- name: mttr_and_sla_by_region
SELECT json_build_object('series', 'mttr_and_sla_by_region',
                         'rows', coalesce(json_agg(found ORDER BY week, region COLLATE "C"), '[]'))::text AS body
FROM reporting.mttr_and_sla_by_region AS found
WHERE (%(from)s::date IS NULL OR week >= %(from)s::date) AND (%(to)s::date IS NULL OR week < %(to)s::date)
  AND (%(region)s::text IS NULL OR region IS NULL OR lower(region) = lower(%(region)s))

-- name: mttr_and_sla_by_team
SELECT json_build_object('series', 'mttr_and_sla_by_team',
                         'rows', coalesce(json_agg(found ORDER BY week, team COLLATE "C"), '[]'))::text AS body
FROM reporting.mttr_and_sla_by_team AS found
WHERE (%(from)s::date IS NULL OR week >= %(from)s::date) AND (%(to)s::date IS NULL OR week < %(to)s::date)
  AND (%(team)s::text IS NULL OR team IS NULL OR lower(team) = lower(%(team)s))

-- name: who_closed
-- A closure for each row, so they come in pages: `next` is the last one of this, where there are more.
WITH found AS (
    SELECT who.*, row_number() OVER (ORDER BY closed_at, ticket_id COLLATE "C") AS nth
    FROM (
        SELECT * FROM reporting.who_closed
        WHERE (%(from)s::date IS NULL OR closed_at >= %(from)s::date::timestamp AT TIME ZONE 'Africa/Nairobi')
          AND (%(to)s::date IS NULL OR closed_at < %(to)s::date::timestamp AT TIME ZONE 'Africa/Nairobi')
          AND (%(cluster)s::text IS NULL OR lower(coalesce(cluster, '(none)')) = lower(%(cluster)s))
          AND (%(region)s::text IS NULL OR lower(coalesce(region, '(none)')) = lower(%(region)s))
          AND (%(team)s::text IS NULL OR lower(coalesce(team, '(none)')) = lower(%(team)s))
          AND (%(after)s::timestamptz IS NULL
               OR closed_at >= %(after)s AND (closed_at, ticket_id COLLATE "C") > (%(after)s, %(after_ticket)s))
        ORDER BY closed_at, ticket_id COLLATE "C"
        LIMIT %(limit)s + 1
    ) AS who
)
SELECT json_build_object(
           'series', 'who_closed',
           'rows', coalesce((SELECT json_agg(json_build_object(
                                 'ticket_id', ticket_id, 'closed_at', closed_at, 'day', day, 'team', team,
                                 'owner', owner, 'cluster', cluster, 'region', region, 'location_name', location_name,
                                 'mttr_minutes', mttr_minutes, 'sla_status', sla_status,
                                 'created_at_service', created_at_service, 'nth_closure', nth_closure,
                                 'was_reopened', was_reopened) ORDER BY nth)
                             FROM found WHERE nth <= %(limit)s), '[]'),
           'next', (SELECT to_json(closed_at) #>> '{{}}' || '/' || ticket_id FROM found
                    WHERE nth = %(limit)s AND EXISTS (SELECT FROM found WHERE nth > %(limit)s))
       )::text AS body

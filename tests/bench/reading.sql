-- So many tickets whose ids begin with `prefix`: `open` of a hundred are open, the others were closed between so many
-- hours ago. As wide as real ones, three in ten without the time of their creation.
INSERT INTO tickets.inc (ticket_id, raw)
SELECT ticket_id, jsonb_build_object(
    'ticket_id', ticket_id,
    'normalized_status', CASE WHEN is_open THEN (ARRAY['open', 'in progress', 'pending'])[1 + n %% 3] ELSE 'closed' END,
    'raw_status', CASE WHEN is_open THEN 'ASSIGNED' ELSE 'CLOSED' END,
    'bucket', (ARRAY['fibre', 'power', 'radio', 'customer'])[1 + n %% 4],
    'is_actionable', (n %% 3 = 0)::text,
    'cluster', format('Cluster %%s', n %% 60),
    'region', (ARRAY['nairobi', 'coast', 'rift', 'western'])[1 + n %% 4],
    'location_name', format('NBO_LOC_%%s Gate %%s', n %% 900, n %% 7),
    'assigned_team', format('Team %%s', n %% 25),
    'owner', format('Owner Name %%s', n %% 200),
    'sla_status', CASE WHEN NOT is_open THEN (ARRAY['within', 'breached'])[1 + n %% 2] END,
    'mttr', CASE WHEN NOT is_open THEN (n %% 3000)::text END,
    'created_at_service', CASE WHEN n %% 10 > 2 THEN (closed_at - make_interval(hours => n %% 90))::text END,
    'scheduled_at', NULL,
    'closed_at', CASE WHEN NOT is_open THEN closed_at::text END,
    'first_seen_at', (closed_at - make_interval(hours => n %% 90))::text,
    'last_seen_at', closed_at::text,
    'source_created_at', closed_at::text,
    'source_updated_at', closed_at::text,
    'latitude', (-1.2 - n %% 997 / 5000.0)::text,
    'longitude', (36.8 + n %% 991 / 5000.0)::text
)
FROM (
    SELECT
        n,
        %(prefix)s || lpad(n::text, 8, '0') AS ticket_id,
        n * 7919::bigint %% 100 < %(open)s AS is_open,
        date_trunc('second', now() AT TIME ZONE 'Africa/Nairobi')
            - make_interval(secs => 3600 * (%(from)s + n * 104729::bigint %% 100000 / 1e5 * (%(to)s - %(from)s)))
            AS closed_at
    FROM generate_series(1, %(tickets)s) AS n
) AS made

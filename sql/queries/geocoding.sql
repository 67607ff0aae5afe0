-- name: clusters_to_ask
-- Every cluster that no answer is kept of, or one too old, or one for another name; those of most tickets first. Each
-- is counted for the first file that has one of its tickets now; those of a file that has more than so many come
-- last.
WITH to_ask AS (
    SELECT wanted.cluster, coalesce(alias.place, wanted.cluster) AS place, wanted.region, wanted.tickets,
           coalesce(count(*) OVER (PARTITION BY wanted.file_id) > %(many)s::bigint, false) AS is_of_many
    FROM (SELECT ticket.cluster, count(*) AS tickets, mode() WITHIN GROUP (ORDER BY ticket.region) AS region,
                 min(ticket.file_id) AS file_id
          FROM ingest.named_places AS ticket
          WHERE ticket.cluster IS NOT NULL
          GROUP BY ticket.cluster) AS wanted
    LEFT JOIN tickets.cluster_aliases AS alias ON lower(alias.cluster) = lower(wanted.cluster)
    LEFT JOIN tickets.geo_clusters AS known ON known.cluster = wanted.cluster
    WHERE known.cluster IS NULL
       OR (NOT known.is_manual
           AND (known.is_due
                OR known.geocoded_at < CASE WHEN known.status = 'hit' THEN %(hits_before)s ELSE %(misses_before)s END
                OR known.unanswered BETWEEN 1 AND %(attempts)s - 1 AND known.geocoded_at < %(unanswered_before)s
                OR known.asked_as <> coalesce(alias.place, wanted.cluster)))
)
SELECT cluster, place, region, count(*) OVER () AS total, count(*) FILTER (WHERE is_of_many) OVER () AS of_many
FROM to_ask
ORDER BY is_of_many, tickets DESC, cluster
LIMIT %(limit)s

-- name: locations_to_ask
-- The same for the places of actionable tickets. Where the cluster has no point there is nothing to hold an answer
-- against, so the location waits for it.
WITH to_ask AS (
    SELECT wanted.cluster, wanted.location_name, coarse.latitude, coarse.longitude, wanted.tickets,
           coalesce(count(*) OVER (PARTITION BY wanted.file_id) > %(many)s::bigint, false) AS is_of_many
    FROM (SELECT ticket.cluster, ticket.location_name, count(*) AS tickets, min(ticket.file_id) AS file_id
          FROM ingest.named_places AS ticket
          WHERE ticket.is_actionable AND ticket.location_name IS NOT NULL AND ticket.geo_source IS DISTINCT FROM 'feed'
          GROUP BY ticket.cluster, ticket.location_name) AS wanted
    JOIN tickets.geo_clusters AS coarse ON coarse.cluster = wanted.cluster AND coarse.geom IS NOT NULL
    LEFT JOIN tickets.geo_locations AS known
        ON known.cluster = wanted.cluster AND known.location_name = wanted.location_name
    WHERE known.cluster IS NULL
       OR (NOT known.is_manual
           AND (known.is_due
                OR known.geocoded_at < CASE WHEN known.status = 'hit' THEN %(hits_before)s ELSE %(misses_before)s END
                OR known.unanswered BETWEEN 1 AND %(attempts)s - 1 AND known.geocoded_at < %(unanswered_before)s))
)
SELECT cluster, location_name, latitude, longitude, count(*) OVER () AS total,
       count(*) FILTER (WHERE is_of_many) OVER () AS of_many
FROM to_ask
ORDER BY is_of_many, tickets DESC, cluster, location_name
LIMIT %(limit)s

-- name: locations_that_wait
-- Those that would be asked for, but for the point of their cluster; a ticket without a cluster has none to wait for.
SELECT count(*) AS places
FROM (SELECT DISTINCT cluster, location_name
      FROM ingest.named_places
      WHERE is_actionable AND location_name IS NOT NULL AND geo_source IS DISTINCT FROM 'feed'
        AND cluster IS NOT NULL) AS wanted
LEFT JOIN tickets.geo_clusters AS coarse ON coarse.cluster = wanted.cluster AND coarse.geom IS NOT NULL
LEFT JOIN tickets.geo_locations AS known
    ON known.cluster = wanted.cluster AND known.location_name = wanted.location_name
WHERE coarse.cluster IS NULL
  AND (known.cluster IS NULL
       OR (NOT known.is_manual
           AND (known.is_due
                OR known.geocoded_at < CASE WHEN known.status = 'hit' THEN %(hits_before)s ELSE %(misses_before)s END
                OR known.unanswered BETWEEN 1 AND %(attempts)s - 1 AND known.geocoded_at < %(unanswered_before)s)))

-- name: cluster_point
SELECT latitude, longitude FROM tickets.geo_clusters WHERE cluster = %(cluster)s AND geom IS NOT NULL FOR UPDATE

-- name: cluster_was_asked
-- A point found under another name was not this one's; while nothing is answered, it may still be.
UPDATE tickets.geo_clusters
SET asked_as = %(asked_as)s, geocoded_at = now(), is_due = false,
    unanswered = CASE WHEN %(unanswered)s > 0 THEN unanswered + 1 ELSE 0 END,
    status = CASE WHEN found_as <> %(asked_as)s AND (%(unanswered)s = 0 OR unanswered + 1 >= %(attempts)s) THEN 'miss'
                  ELSE status END
WHERE cluster = %(cluster)s AND NOT is_manual

-- name: keep_cluster
-- What is known to be somewhere stays there until another point is answered, and what was set by hand for good. No
-- answer is no reason to forget one.
INSERT INTO tickets.geo_clusters AS known
    (cluster, asked_as, found_as, latitude, longitude, query, provider, quality, answer, status, unanswered)
VALUES (%(cluster)s, %(asked_as)s, %(asked_as)s, %(latitude)s, %(longitude)s, %(query)s, %(provider)s, %(quality)s,
        %(answer)s,
        %(status)s, %(unanswered)s)
ON CONFLICT (cluster) DO UPDATE
SET found_as = excluded.found_as, latitude = excluded.latitude, longitude = excluded.longitude, query = excluded.query,
    provider = excluded.provider, quality = excluded.quality, answer = excluded.answer, status = excluded.status
WHERE NOT known.is_manual
  AND (excluded.status = 'hit' OR known.status = 'miss' OR known.status = 'rejected' AND excluded.unanswered = 0)

-- name: judge_locations
-- The point of a cluster has changed, so which answers are near enough to it has, too. What was not found near the old
-- one is asked for again, unless the new one is next to it; and all of them where there was none, even if near.
UPDATE tickets.geo_locations AS location
SET distance_m = judged.metres,
    status = judged.status,
    is_due = CASE WHEN judged.status <> 'hit' THEN judged.is_elsewhere OR location.is_due
                  ELSE location.is_due AND %(was_latitude)s::float8 IS NULL END
FROM (SELECT answered.location_name, measured.metres,
             CASE WHEN measured.metres IS NULL THEN 'miss'
                  WHEN measured.metres > %(guard_m)s
                       OR split_part(coalesce(answered.quality, ''), '/', 3) = ANY(%(too_coarse)s) THEN 'rejected'
                  ELSE 'hit' END AS status,
             ST_Distance(ST_SetSRID(ST_MakePoint(%(was_longitude)s, %(was_latitude)s), 4326)::geography,
                         coarse.geom::geography) <= 1000 IS NOT TRUE AS is_elsewhere
      FROM tickets.geo_clusters AS coarse
      JOIN tickets.geo_locations AS answered USING (cluster)
      CROSS JOIN LATERAL (
          SELECT ST_Distance(ST_SetSRID(ST_MakePoint(answered.longitude, answered.latitude), 4326)::geography,
                             coarse.geom::geography) AS metres
      ) AS measured
      WHERE coarse.cluster = %(cluster)s AND coarse.geom IS NOT NULL AND NOT answered.is_manual) AS judged
WHERE location.cluster = %(cluster)s AND location.location_name = judged.location_name

-- name: disown_locations
-- The cluster has no point any more that its answers could be held against. They wait for its next one.
UPDATE tickets.geo_locations
SET status = CASE WHEN status = 'hit' THEN 'rejected' ELSE status END, distance_m = NULL, is_due = true
WHERE cluster = %(cluster)s AND NOT is_manual

-- name: answered_before
-- Another name of the cluster that is the same without its network codes.
SELECT latitude, longitude, query, provider, quality, answer, status, distance_m, geocoded_at
FROM tickets.geo_locations
WHERE cluster = %(cluster)s AND cleaned_query = %(cleaned_query)s AND location_name <> %(location_name)s
  AND NOT is_manual AND NOT is_due AND query IS NOT NULL
  AND (geocoded_at < CASE WHEN status = 'hit' THEN %(hits_before)s ELSE %(misses_before)s END) IS NOT TRUE
ORDER BY geocoded_at DESC
LIMIT 1

-- name: distances
-- Metres between each place of an answer and the point of its cluster, which stays where it is until the answer is
-- kept.
SELECT ST_Distance(ST_SetSRID(ST_MakePoint(answered.longitude, answered.latitude), 4326)::geography,
                   coarse.geom::geography) AS metres
FROM tickets.geo_clusters AS coarse
CROSS JOIN unnest(%(latitudes)s::float8[], %(longitudes)s::float8[]) WITH ORDINALITY
    AS answered (latitude, longitude, number)
WHERE coarse.cluster = %(cluster)s AND coarse.geom IS NOT NULL
ORDER BY answered.number
FOR SHARE OF coarse

-- name: location_was_asked
-- An answer that another name got is as old as it is there.
UPDATE tickets.geo_locations
SET geocoded_at = coalesce(%(geocoded_at)s, now()), is_due = false,
    unanswered = CASE WHEN %(unanswered)s > 0 THEN unanswered + 1 ELSE 0 END
WHERE cluster = %(cluster)s AND location_name = %(location_name)s AND NOT is_manual

-- name: keep_location
INSERT INTO tickets.geo_locations AS known
    (cluster, location_name, cleaned_query, latitude, longitude, query, provider, quality, answer, status, distance_m,
     geocoded_at, unanswered)
VALUES (%(cluster)s, %(location_name)s, %(cleaned_query)s, %(latitude)s, %(longitude)s, %(query)s, %(provider)s,
        %(quality)s, %(answer)s, %(status)s, %(distance_m)s, coalesce(%(geocoded_at)s, now()), %(unanswered)s)
ON CONFLICT (cluster, location_name) DO UPDATE
SET cleaned_query = excluded.cleaned_query, latitude = excluded.latitude, longitude = excluded.longitude,
    query = excluded.query, provider = excluded.provider, quality = excluded.quality, answer = excluded.answer,
    status = excluded.status, distance_m = excluded.distance_m
WHERE NOT known.is_manual
  AND (excluded.status = 'hit' OR known.status = 'miss' OR known.status = 'rejected' AND excluded.unanswered = 0)

-- name: place_tickets
-- Of one feed, all tickets that are elsewhere than the gazetteer has them, whatever the reason: the place became
-- known, changed, was set by hand or taken back, or a file was merged while that happened. A place that the gazetteer
-- has and knows no point of leaves them nowhere; one that it does not have at all takes nothing off the map. In the
-- order of their ids, as files are merged, so that the two cannot deadlock.
WITH elsewhere AS (
    SELECT ticket.ticket_id, found.geom, found.geo_source
    FROM {tickets} AS ticket
    LEFT JOIN tickets.geo_locations AS precise
        ON precise.cluster = ticket.cluster AND precise.location_name = ticket.location_name
    LEFT JOIN tickets.geo_clusters AS coarse ON coarse.cluster = ticket.cluster
    CROSS JOIN LATERAL (
        SELECT coalesce(precise.geom, coarse.geom) AS geom,
               CASE WHEN precise.geom IS NOT NULL THEN 'location'
                    WHEN coarse.geom IS NOT NULL THEN 'cluster' END AS geo_source
    ) AS found
    WHERE ticket.geo_source IS DISTINCT FROM 'feed'
      AND (ticket.geom IS DISTINCT FROM found.geom OR ticket.geo_source IS DISTINCT FROM found.geo_source)
      AND (found.geom IS NOT NULL
           OR ticket.geo_source IN ('cluster', 'location') AND coalesce(precise.cluster, coarse.cluster) IS NOT NULL)
    ORDER BY ticket.ticket_id
    FOR UPDATE OF ticket
), placed AS (
    UPDATE {tickets} AS ticket SET geom = elsewhere.geom, geo_source = elsewhere.geo_source
    FROM elsewhere
    WHERE ticket.ticket_id = elsewhere.ticket_id
    RETURNING ticket.ticket_id, ticket.geo_source
)
SELECT count(geo_source) AS placed, count(*) - count(geo_source) AS unplaced, array_agg(ticket_id) AS ticket_ids
FROM placed

-- name: move_version
-- Last, as files do, which wait for it; and of several feeds in the order of their names.
WITH chunk AS (
    SELECT (nth - 1) / 500 AS nth, array_agg(ticket_id) AS ticket_ids
    FROM unnest(%(ticket_ids)s::text[]) WITH ORDINALITY AS placed (ticket_id, nth)
    GROUP BY 1
), moved_to AS (
    UPDATE tickets.import_meta SET data_version = data_version + (SELECT count(*) FROM chunk) WHERE source = %(feed)s
    RETURNING source, data_version
)
INSERT INTO ingest.changes (feed, data_version, ticket_ids)
SELECT source, data_version - nth, ticket_ids FROM moved_to CROSS JOIN chunk
ON CONFLICT (feed, data_version) DO UPDATE SET ticket_ids = excluded.ticket_ids, at = excluded.at

-- name: ask_for_batch
INSERT INTO ingest.outbox (kind) VALUES ('geocode')

-- name: ask_for_batch_tomorrow
-- When the day's requests are renewed, and the provider's clock may be behind ours. Once is enough.
INSERT INTO ingest.outbox (kind, due_at)
SELECT 'geocode', date_trunc('day', now(), 'UTC') + interval '1 day 15 minutes'
WHERE NOT EXISTS (SELECT FROM ingest.outbox
                  WHERE kind = 'geocode' AND handled_at IS NULL AND due_at > now())
RETURNING due_at

-- name: is_in_kenya
SELECT 1 AS yes WHERE tickets.kenya_point(%(latitude)s, %(longitude)s) IS NOT NULL

-- name: set_cluster
INSERT INTO tickets.geo_clusters (cluster, latitude, longitude, provider, status, is_manual)
VALUES (%(cluster)s, %(latitude)s, %(longitude)s, 'by hand', 'hit', true)
ON CONFLICT (cluster) DO UPDATE
SET found_as = NULL, latitude = excluded.latitude, longitude = excluded.longitude, provider = excluded.provider,
    quality = NULL, status = excluded.status, is_manual = true, geocoded_at = now(), unanswered = 0

-- name: set_location
INSERT INTO tickets.geo_locations
    (cluster, location_name, cleaned_query, latitude, longitude, provider, status, is_manual)
VALUES (%(cluster)s, %(location_name)s, %(cleaned_query)s, %(latitude)s, %(longitude)s, 'by hand', 'hit', true)
ON CONFLICT (cluster, location_name) DO UPDATE
SET latitude = excluded.latitude, longitude = excluded.longitude, provider = excluded.provider, quality = NULL,
    distance_m = NULL, status = excluded.status, is_manual = true, geocoded_at = now(), unanswered = 0

-- name: unset_cluster
-- Not known any more, so that the provider is asked again.
UPDATE tickets.geo_clusters
SET latitude = NULL, longitude = NULL, status = 'miss', is_manual = false, is_due = true
WHERE cluster = %(cluster)s AND is_manual
RETURNING cluster

-- name: unset_location
UPDATE tickets.geo_locations
SET latitude = NULL, longitude = NULL, status = 'miss', is_manual = false, is_due = true
WHERE cluster = %(cluster)s AND location_name = %(location_name)s AND is_manual
RETURNING cluster

-- name: tickets_there
SELECT count(*) AS tickets FROM ingest.named_places
WHERE cluster = %(cluster)s AND (%(location_name)s::text IS NULL OR location_name = %(location_name)s)

-- name: set_alias
INSERT INTO tickets.cluster_aliases (cluster, place) VALUES (%(cluster)s, %(place)s)
ON CONFLICT (lower(cluster)) DO UPDATE SET cluster = excluded.cluster, place = excluded.place

-- name: is_manual
SELECT 1 AS yes FROM tickets.geo_clusters WHERE cluster = %(cluster)s AND is_manual

-- Where tickets are by what their rows say and what the gazetteer knows, for a statement that writes many. The trigger
-- resolve_geom has the same rule for one row at a time, which is half as fast for each: it is for rows by hand.
CREATE FUNCTION tickets.place_of(raw jsonb) RETURNS TABLE (geom geometry, geo_source text)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
SELECT coalesce(fed.geom, location.geom, cluster.geom),
       CASE WHEN fed.geom IS NOT NULL THEN 'feed'
            WHEN location.geom IS NOT NULL THEN 'location'
            WHEN cluster.geom IS NOT NULL THEN 'cluster' END
FROM (SELECT tickets.kenya_point(tickets.feed_degrees(raw ->> 'latitude'), tickets.feed_degrees(raw ->> 'longitude'))
             AS geom) AS fed
LEFT JOIN tickets.geo_locations AS location
    ON location.cluster = raw ->> 'cluster' AND location.location_name = raw ->> 'location_name'
LEFT JOIN tickets.geo_clusters AS cluster ON cluster.cluster = raw ->> 'cluster';
END;
COMMENT ON FUNCTION tickets.place_of(jsonb) IS
    'Coordinates of the feed within Kenya, else the location''s point, else the cluster''s, else none.';

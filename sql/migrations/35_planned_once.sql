-- PostgreSQL plans a function in SQL anew for each statement that calls it, where that cannot take its query in; one in
-- PL/pgSQL is planned once for its session. Each file is claimed by these two, for longer than they run.
CREATE OR REPLACE FUNCTION ingest.current_epoch(of_feed text) RETURNS integer
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT max(epoch) FROM ingest.epochs WHERE feed = of_feed);
END
$$;

CREATE OR REPLACE FUNCTION ingest.place_among_versions(
    found_bucket text, found_key text, found_etag text, found_at timestamptz, found_version text)
RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN found_version IS NOT NULL THEN found_at
                ELSE (SELECT greatest(found_at, max(other.object_time) + interval '1 microsecond')
                      FROM ingest.ledger AS other
                      WHERE other.bucket = found_bucket AND other.key = found_key AND other.etag <> found_etag
                        AND other.applied_at IS NOT NULL
                        AND date_trunc('second', other.object_time) = date_trunc('second', found_at)) END;
END
$$;

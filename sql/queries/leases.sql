-- name: take
-- Whose it is, he keeps it; else it is free once its time is over.
UPDATE ingest.leases
SET holder = %(holder)s, until = clock_timestamp() + %(length)s,
    since = CASE WHEN holder = %(holder)s AND until > clock_timestamp() THEN since ELSE clock_timestamp() END
WHERE name = %(name)s AND (holder = %(holder)s OR until <= clock_timestamp())
RETURNING until

-- name: held
SELECT holder, since, until FROM ingest.leases WHERE name = %(name)s AND until > clock_timestamp()

-- name: give_back
UPDATE ingest.leases SET until = clock_timestamp()
WHERE name = %(name)s AND holder = %(holder)s AND until > clock_timestamp()

-- Bytes that were applied once, were replaced by others, and are back while a policy passes changed files over: they
-- stay where they are, for the policy that takes them up.
ALTER TABLE ingest.ledger ADD COLUMN passed_over_time timestamptz;
COMMENT ON COLUMN ingest.ledger.passed_over_time IS
    'Of a version that was applied: LastModified of a later put of it, which the policy for changed files passed over '
    'and which is still in changes/, unless its key has something else by now.';

-- Whether that very put is the one that is found. Listings have fractions of a second that a read does not.
CREATE FUNCTION ingest.is_passed_over(file ingest.ledger, found_at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(date_trunc('second', file.passed_over_time, 'UTC') = date_trunc('second', found_at, 'UTC'), false);

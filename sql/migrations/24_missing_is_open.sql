-- Whether the ledger has a verdict on a version that was read, or whether it is to be decided now. A failed one has
-- its retries and its letter, which are the claim's business. One that was seen and then not found is no verdict:
-- should it be there after all, it was withdrawn and put again, or has come to light from under a later one.
CREATE OR REPLACE FUNCTION ingest.is_open(file ingest.ledger, found_at timestamptz, found_version text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN file.state = 'seen'
       OR file.state = 'done' AND file.applied_at IS NULL AND file.decision IN ('changed', 'missing')
       OR ingest.is_back(file, found_at, found_version);

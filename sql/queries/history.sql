-- name: lock
SELECT FROM ingest.locks WHERE name = 'history' FOR UPDATE

-- name: capture
SELECT tickets.capture_history() AS captured

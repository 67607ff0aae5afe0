-- name: begin
-- It holds all that it touches until its end, in the order of its files. Whoever is going to hold several rows as well
-- would meet it half-way; so it waits for those, and they wait for it before their first.
LOCK TABLE ingest.key_slots IN EXCLUSIVE MODE

-- name: bound
-- A run that somebody has stopped in the middle, in a terminal, ends by itself. The store is given 20 s for a byte.
SET LOCAL idle_in_transaction_session_timeout = '60s'

-- name: wait_for
LOCK TABLE ingest.key_slots IN ROW SHARE MODE

-- The merge writes to two tables that the batch import may have made with fewer columns than 02 and 10 give them.
-- On a database that was not adopted this changes nothing.
ALTER TABLE tickets.import_meta
    ADD COLUMN IF NOT EXISTS source text,
    ADD COLUMN IF NOT EXISTS snapshot_at timestamptz,
    ADD COLUMN IF NOT EXISTS imported_at timestamptz,
    ADD COLUMN IF NOT EXISTS row_count bigint,
    ADD COLUMN IF NOT EXISTS metadata jsonb NOT NULL DEFAULT '{}';

ALTER TABLE tickets.closure_events
    ADD COLUMN IF NOT EXISTS cluster text,
    ADD COLUMN IF NOT EXISTS region text,
    ADD COLUMN IF NOT EXISTS location_name text,
    ADD COLUMN IF NOT EXISTS assigned_team text,
    ADD COLUMN IF NOT EXISTS owner text,
    ADD COLUMN IF NOT EXISTS sla_status text,
    ADD COLUMN IF NOT EXISTS mttr integer,
    ADD COLUMN IF NOT EXISTS created_at_service timestamptz,
    ADD COLUMN IF NOT EXISTS observed_at timestamptz NOT NULL DEFAULT now();

-- The row that carries the newest watermark is the INC feed's.
UPDATE tickets.import_meta
SET source = 'inc'
WHERE ctid = (SELECT ctid FROM tickets.import_meta
              WHERE metadata->>'source_max_key' IS NOT NULL
              ORDER BY metadata->>'source_max_key' COLLATE "C" DESC
              LIMIT 1)
  AND NOT EXISTS (SELECT FROM tickets.import_meta WHERE source = 'inc');

-- ON CONFLICT needs a unique index on exactly these columns.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = 'tickets.import_meta'::regclass AND indisunique
                   AND pg_get_indexdef(indexrelid) LIKE '%(source)') THEN
        CREATE UNIQUE INDEX import_meta_source_key ON tickets.import_meta (source);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = 'tickets.closure_events'::regclass AND indisunique
                   AND pg_get_indexdef(indexrelid) LIKE '%(ticket_id, closed_at)') THEN
        CREATE UNIQUE INDEX closure_events_ticket_id_closed_at_key ON tickets.closure_events (ticket_id, closed_at);
    END IF;
END
$$;

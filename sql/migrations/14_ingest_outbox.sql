-- Requests that a file's transaction leaves for the follow-on steps; the relay sends them, their handlers close them.
CREATE TABLE ingest.outbox (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('geocode', 'history')),
    file_id    bigint NOT NULL REFERENCES ingest.ledger,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at    timestamptz,
    handled_at timestamptz,
    UNIQUE (file_id, kind)
);
CREATE INDEX outbox_unsent ON ingest.outbox (request_id) WHERE sent_at IS NULL AND handled_at IS NULL;
CREATE INDEX outbox_unhandled ON ingest.outbox (kind, request_id) WHERE handled_at IS NULL;
CREATE INDEX outbox_handled ON ingest.outbox (kind, handled_at DESC) WHERE handled_at IS NOT NULL;

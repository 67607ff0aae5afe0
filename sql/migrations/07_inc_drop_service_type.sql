-- adopted when: SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name = 'created_at_service') AND NOT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name = 'service_type')

-- Constant in the whole feed; raw still has it.
ALTER TABLE tickets.inc DROP COLUMN IF EXISTS service_type;

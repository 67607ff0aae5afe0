-- The logins of programs, each a member of one of the roles that `migrate` made for the database. Run with psql by a
-- superuser of the server, after `migrate`; safe to repeat, and a changed password is taken over. Passwords come from the
-- environment: POSTGRES_CONSUMER_PASSWORD and POSTGRES_READER_PASSWORD.
\set ON_ERROR_STOP on
\getenv consumer_password POSTGRES_CONSUMER_PASSWORD
\getenv reader_password POSTGRES_READER_PASSWORD
SELECT ingest.role_name('ingest') AS ingest_role, ingest.role_name('read') AS read_role \gset
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT 'CREATE ROLE fleettickets_consumer' WHERE to_regrole('fleettickets_consumer') IS NULL \gexec
SELECT 'CREATE ROLE fleettickets_reader' WHERE to_regrole('fleettickets_reader') IS NULL \gexec
-- The server's log is not to have the passwords.
SET LOCAL log_statement = 'none';
SET LOCAL log_min_error_statement = 'panic';
-- Every command but migrate.
ALTER ROLE fleettickets_consumer LOGIN PASSWORD :'consumer_password';
GRANT :"ingest_role" TO fleettickets_consumer;
-- Tables, views and reports; status, verify, explain.
ALTER ROLE fleettickets_reader LOGIN PASSWORD :'reader_password';
GRANT :"read_role" TO fleettickets_reader;
COMMIT;

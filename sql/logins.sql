-- The logins of programs, each a member of one of the roles that `migrate` made for the database. Run with psql by a
-- superuser of the server, after `migrate`; safe to repeat, and a changed password is taken over. Passwords come from
-- the environment: POSTGRES_CONSUMER_PASSWORD and POSTGRES_READER_PASSWORD.
--
-- It also takes from everybody in this database what PostgreSQL gives to everybody, and what fills the disk: temporary
-- tables, and writing large objects. Another program's login that needs them here has to be given them again.
\set ON_ERROR_STOP on
\getenv consumer_password POSTGRES_CONSUMER_PASSWORD
\getenv reader_password POSTGRES_READER_PASSWORD
\if :{?consumer_password}
\else
\set consumer_password ''
\endif
\if :{?reader_password}
\else
\set reader_password ''
\endif
SELECT '' IN (:'consumer_password', :'reader_password') AS is_missing \gset
\if :is_missing
DO $$ BEGIN RAISE 'POSTGRES_CONSUMER_PASSWORD and POSTGRES_READER_PASSWORD have to be in the environment'; END $$;
\endif
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
-- Tables, views and reports; status, explain. The number of connections and the room for sorting hold whatever it does;
-- the two limits of time are for mishaps, since a session may lift them.
ALTER ROLE fleettickets_reader LOGIN PASSWORD :'reader_password' CONNECTION LIMIT 20;
ALTER ROLE fleettickets_reader SET temp_file_limit = '1GB';
ALTER ROLE fleettickets_reader SET statement_timeout = '5min';
ALTER ROLE fleettickets_reader SET idle_in_transaction_session_timeout = '5min';
GRANT :"read_role" TO fleettickets_reader;
-- No limit counts temporary tables. Who applies files needs them, by whichever role.
SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), name)
FROM (SELECT ingest.role_name('ingest') AS name
      UNION ALL SELECT name FROM ingest.other_roles() WHERE kind = 'ingest') AS applying \gexec
-- Large objects stay after their session, and nothing of ours is one.
SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure)
FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace
  AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import', 'lo_put', 'lo_truncate', 'lo_truncate64',
                  'lowrite') \gexec
COMMIT;

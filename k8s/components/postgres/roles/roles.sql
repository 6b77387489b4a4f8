-- Two roles for one results database: the owner changes the schema, the writer only rows.
--   psql "$SUPERUSER_URL" -d <database> -f k8s/components/postgres/roles/roles.sql
--   \password pipeline_owner    \password pipeline_writer
-- The environment stage runs with the owner's DATABASE_URL, every other stage with the writer's. Run it again whenever
-- you like; it changes no password.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pipeline_owner') THEN
        CREATE ROLE pipeline_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pipeline_writer') THEN
        CREATE ROLE pipeline_writer LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
    -- Nobody else may come in; TEMPORARY is for batches of rows on their way into a table.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO pipeline_owner, pipeline_writer', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO pipeline_owner;
GRANT USAGE ON SCHEMA public TO pipeline_writer;

-- Tables that are there, and those the owner will make.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO pipeline_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE pipeline_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO pipeline_writer;

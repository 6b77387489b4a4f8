#!/bin/sh
# Two roles: the owner makes and migrates the tables, the writer fills them and can do no more.
# psql quotes the passwords; they are in no command line and in no log.
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres <<'SQL'
\getenv owner_password OWNER_PASSWORD
\getenv writer_password WRITER_PASSWORD
SET password_encryption = 'scram-sha-256';
CREATE ROLE alignment_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE alignment_writer LOGIN PASSWORD :'writer_password';
CREATE DATABASE alignment OWNER alignment_owner;
REVOKE ALL ON DATABASE alignment FROM PUBLIC;
GRANT CONNECT ON DATABASE alignment TO alignment_writer;
\connect alignment
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO alignment_owner;
GRANT USAGE ON SCHEMA public TO alignment_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE alignment_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO alignment_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE alignment_owner IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO alignment_writer;
SQL

#!/bin/sh
# After roles.sql: the roles' passwords. psql quotes them; they are in no command line and in no log.
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname="$POSTGRES_DB" <<'SQL'
\getenv owner_password PIPELINE_OWNER_PASSWORD
\getenv writer_password PIPELINE_WRITER_PASSWORD
ALTER ROLE pipeline_owner PASSWORD :'owner_password';
ALTER ROLE pipeline_writer PASSWORD :'writer_password';
SQL

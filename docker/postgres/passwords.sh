#!/bin/sh
# Gives the roles of roles.sql their passwords, from the environment. The database's image runs it once.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
    -v owner="$PIPELINE_OWNER_PASSWORD" -v writer="$PIPELINE_WRITER_PASSWORD" <<'SQL'
ALTER ROLE pipeline_owner PASSWORD :'owner';
ALTER ROLE pipeline_writer PASSWORD :'writer';
SQL

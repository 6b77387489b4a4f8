#!/bin/sh
# The bucket and the database of compose.yaml: `make services-up`, `make services-down`.
#   DOCKER  the program to use (docker; podman has the same commands)
set -eu
cd "$(dirname "$0")"
docker=${DOCKER:-docker}
say() { printf 'services     %s\n' "$*" >&2; }

if ! command -v "$docker" >/dev/null 2>&1; then
    say "there is no $docker here; install it, or name another with DOCKER=..., or use servers of your own (DATABASE_URL)"
    exit 2
fi

secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

case "${1:-}" in
up)
    if [ ! -e .env ]; then
        # For this machine alone: the file stays out of version control, readable by its owner only.
        (
            umask 077
            {
                echo "BUCKET_ACCESS_KEY=pipeline"
                echo "BUCKET_SECRET_KEY=$(secret)"
                echo "POSTGRES_PASSWORD=$(secret)"
                echo "PIPELINE_OWNER_PASSWORD=$(secret)"
                echo "PIPELINE_WRITER_PASSWORD=$(secret)"
            } > .env.partial
            mv .env.partial .env
        )
        say "wrote docker/.env with fresh passwords"
    fi
    "$docker" compose --env-file .env -f compose.yaml up --detach --wait || {
        say "not all of them came up; what they said: $docker compose --env-file docker/.env -f docker/compose.yaml logs"
        exit 1
    }
    say "both answer. For the pipeline, in this shell:"
    cat <<'TEXT'
    set -a; . docker/.env; set +a
    export DATABASE_URL="postgresql+psycopg2://pipeline_owner:$PIPELINE_OWNER_PASSWORD@127.0.0.1:${POSTGRES_PORT:-5432}/results"
    export ARTIFACTS_URI=s3://pipeline/artifacts AWS_ENDPOINT_URL_S3="http://127.0.0.1:${BUCKET_PORT:-9000}"
    export AWS_ACCESS_KEY_ID="$BUCKET_ACCESS_KEY" AWS_SECRET_ACCESS_KEY="$BUCKET_SECRET_KEY"
TEXT
    ;;
down)
    if [ ! -e .env ]; then
        say "nothing to stop: there is no docker/.env, so make services-up never ran here"
        exit 0
    fi
    "$docker" compose --env-file .env -f compose.yaml down
    say "stopped; the data stays in its volumes"
    ;;
*)
    say "usage: services.sh up|down"
    exit 2
    ;;
esac

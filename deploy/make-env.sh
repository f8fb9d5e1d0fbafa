#!/bin/sh
# Makes .env for docker-compose.yml with fresh secrets. An .env that is there stays as it is.
set -eu
cd "$(dirname "$0")/.."
[ ! -e .env ] || { echo ".env is there already; it stays as it is"; exit 0; }
# Letters and digits only, since the password also stands in a URL.
secret() { head -c 512 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c 48; }
umask 077
cat >.env <<ENV
POSTGRES_PASSWORD=$(secret)
JWT_SECRET=$(secret)
JWT_REFRESH_SECRET=$(secret)
# Keep a copy of this one elsewhere: it opens every stored secret.
TESTFLOW_MASTER_KEY=$(secret)
ENV
echo "made .env, readable by you alone; keep a copy of TESTFLOW_MASTER_KEY somewhere else"

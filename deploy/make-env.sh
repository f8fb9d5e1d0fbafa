#!/bin/sh
# Makes .env for docker-compose.yml with fresh secrets. A file that is there stays as it is.
#
#   deploy/make-env.sh [FILE]
set -eu
file=${1:-$(dirname "$0")/../.env}
[ ! -e "$file" ] || { echo "$file is there already; it stays as it is"; exit 0; }
# Letters and digits only, since the password also stands in a URL.
secret() { head -c 512 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c 48; }
umask 077
cat >"$file" <<ENV
POSTGRES_PASSWORD=$(secret)
JWT_SECRET=$(secret)
JWT_REFRESH_SECRET=$(secret)
# Keep a copy of this one elsewhere: it opens every stored secret.
TESTFLOW_MASTER_KEY=$(head -c 32 /dev/urandom | base64)
ENV
echo "made $file, readable by you alone; keep a copy of its TESTFLOW_MASTER_KEY somewhere else"

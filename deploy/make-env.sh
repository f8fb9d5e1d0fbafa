#!/bin/sh
# Makes .env for docker-compose.yml with fresh secrets. A file that is there stays as it is.
#
#   deploy/make-env.sh [FILE]
set -eu
file=${1:-$(dirname "$0")/../.env}
[ ! -e "$file" ] || { echo "$file is there already; it stays as it is"; exit 0; }
# Letters and digits only, since the password also stands in a URL.
secret() { head -c 512 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9' | head -c 48; }
# The key of region default, as `testflow region key default` prints it: HKDF-SHA-256 of the master key (RFC 5869).
hmac() { openssl dgst -sha256 -mac HMAC -macopt "hexkey:$1" -binary; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
region_key() {
  command -v openssl >/dev/null 2>&1 || return 0
  prk=$(printf '%s' "$1" | base64 -d | hmac 0000000000000000000000000000000000000000000000000000000000000000 | hex)
  printf 'testflow region:default\001' | hmac "$prk" | base64
}
master=$(head -c 32 /dev/urandom | base64)
umask 077
cat >"$file" <<ENV
POSTGRES_PASSWORD=$(secret)
JWT_SECRET=$(secret)
JWT_REFRESH_SECRET=$(secret)
# Keep a copy of this one elsewhere: it opens every stored secret.
TESTFLOW_MASTER_KEY=$master
# What the worker gets instead. Empty without openssl: docker compose run --rm serve region key default
TESTFLOW_REGION_KEY=$(region_key "$master")
ENV
echo "made $file, readable by you alone; keep a copy of its TESTFLOW_MASTER_KEY somewhere else"

#!/bin/sh
# Makes the images that deploy/Dockerfile, docker-compose.yml and the container tests build on, for a machine that reaches
# package registries and no image registry. Where docker pull works, none of this is needed.
#
#   deploy/images/make.sh                  makes what is missing: testflow/debian:12, testflow/postgres:15, testflow/golang:1
#   deploy/images/make.sh postgres         makes what that one needs
#
# Then:  POSTGRES_IMAGE=testflow/postgres:15 GO_IMAGE=testflow/golang:1 docker compose up
set -eu
cd "$(dirname "$0")"
# The plain builder: buildx is a plugin that a Debian client doesn't have.
export DOCKER_BUILDKIT=0
have() { docker image inspect "$1" >/dev/null 2>&1; }
build() { # tag, Dockerfile, context
	have "$1" && return
	log=$(mktemp)
	docker build --build-arg DEBIAN_IMAGE=testflow/debian:12 -f "$2" -t "$1" "$3" >"$log" 2>&1 || {
		tail -n 40 "$log" >&2
		rm -f "$log"
		exit 1
	}
	rm -f "$log"
	echo "$1"
}

what=${1:-all}
have testflow/debian:12 || ./debian.sh testflow/debian:12
case $what in all | postgres) build testflow/postgres:15 postgres.Dockerfile . ;; esac
case $what in all | golang) build testflow/golang:1 golang.Dockerfile "$(go env GOROOT)" ;; esac

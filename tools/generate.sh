#!/bin/sh
# Writes what is generated: sqlc's Go code from sql/ and migrations/, oapi-codegen's from openapi/, and docs/test-language.md from
# the tables of internal/testspec.
#
#   generate.sh .         writes it in place
#   generate.sh --check   writes it into a copy and fails when that differs from what is here
#
# SQLC and OAPI_CODEGEN name the two programs; `make generate` and `make verify` set them.
set -eu
cd "$(dirname "$0")/.."

generate() (
	mkdir -p "$1/docs"
	"${GO:-go}" run ./internal/testspec/reference -o "$1/docs/test-language.md"
	cd "$1"
	# sqlc removes nothing: a folder whose queries went away would stay for ever.
	rm -rf internal/*/internal/*db
	if grep -q '^  - ' sqlc.yaml; then
		"$SQLC" generate
	fi
	for config in openapi/*.codegen.yaml; do
		[ -e "$config" ] || continue
		mkdir -p "$(dirname "$(sed -n 's/^output: *//p' "$config")")"
		"$OAPI_CODEGEN" -config "$config" openapi/openapi.yaml
	done
)

case "${1:-.}" in
.)
	generate .
	;;
--check)
	copy=$(mktemp -d)
	trap 'rm -rf "$copy"' EXIT
	trap 'exit 130' INT TERM
	set -- sqlc.yaml go.mod internal
	for d in sql migrations openapi; do [ -d "$d" ] && set -- "$@" "$d"; done
	tar -cf - "$@" | tar -xf - -C "$copy"
	generate "$copy"
	if ! diff -r internal "$copy/internal" || ! diff docs/test-language.md "$copy/docs/test-language.md"; then
		echo "make verify: generated code isn't what its sources say; run: make generate" >&2
		exit 1
	fi
	;;
*)
	echo "usage: generate.sh [. | --check]" >&2
	exit 2
	;;
esac

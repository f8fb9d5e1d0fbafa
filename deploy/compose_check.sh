#!/usr/bin/env bash
# Brings docker-compose.yml up under a name of its own, does by curl what a first user does (register, create, execute,
# read the result that the worker made), stops it all, and fails when any of it isn't as it should be. Needs a Docker
# engine, curl and jq; half a minute, and minutes more to build the image the first time. POSTGRES_IMAGE and GO_IMAGE choose
# other base images; TESTFLOW_IMAGE takes an image that is there instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."

# The plugin, or the older program of its own; the file suits both.
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
# A Debian client has no buildx.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0

work=$(mktemp -d)
sh deploy/make-env.sh "$work/env" >/dev/null
build=(--build)
[ -z "${TESTFLOW_IMAGE:-}" ] || build=(--no-build)
export COMPOSE_PROJECT_NAME=testflow-check-$$ TESTFLOW_IMAGE=${TESTFLOW_IMAGE:-testflow:check}
export TESTFLOW_PUBLISH=127.0.0.1: # a free port
# The target of the test below is the server itself, on the compose network, which is a private one.
export TESTFLOW_EGRESS_ALLOW=172.16.0.0/12:3000,192.168.0.0/16:3000
compose+=(--env-file "$work/env")

finish() {
	local code=$?
	set +e
	if [ "$code" != 0 ]; then
		echo "--- compose_check: failed; what the services said last:" >&2
		"${compose[@]}" logs --tail 60 >&2
	fi
	"${compose[@]}" down -v --remove-orphans -t 10 >/dev/null 2>&1
	rm -rf "$work"
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '  %s\n' "$*"; }
fail() { echo "compose_check: $*" >&2; exit 1; }

"${compose[@]}" up -d "${build[@]}" >"$work/up.log" 2>&1 || { tail -n 40 "$work/up.log" >&2; fail "up"; }
base=http://$("${compose[@]}" port serve 3000)
say "up at $base"

for _ in $(seq 60); do
	if curl -fsS -m 2 "$base/readyz" >/dev/null 2>&1; then break; fi
	sleep 1
done
curl -fsS -m 2 "$base/readyz" >/dev/null || fail "not ready after a minute: $(curl -sS -m 2 "$base/readyz?verbose")"
say "ready"

token=
call() { # METHOD PATH [BODY [HEADER…]] prints the answer, fails on anything but 2xx
	local method=$1 path=$2 body=${3:-} h args=()
	shift 2
	[ $# -eq 0 ] || shift
	for h in "$@"; do args+=(-H "$h"); done
	[ -z "$body" ] || args+=(-H 'Content-Type: application/json' --data "$body")
	[ -z "$token" ] || args+=(-H "Authorization: Bearer $token")
	local status
	status=$(curl -sS -m 60 -o "$work/answer" -w '%{http_code}' -X "$method" "${args[@]}" "$base$path")
	case $status in 2*) cat "$work/answer" ;; *) echo "$method $path answered $status: $(cat "$work/answer")" >&2; return 1 ;; esac
}

setup=$("${compose[@]}" logs serve 2>/dev/null | grep -o '"setup_token":"[^"]*"' | head -n 1 | cut -d'"' -f4)
[ -n "$setup" ] || fail "the server's log holds no setup token"
token=$(call POST /api/auth/register "$(jq -n --arg s "$setup" '{email: "ada@example.com", password: "marble otter sunset violin", name: "Ada",
	organizationName: "Analytical Engines", setupToken: $s}')" | jq -er .accessToken)
say "registered"
project=$(call POST /api/projects '{"name":"Compose"}' | jq -er .id)
test=$(call POST /api/tests "$(jq -n --arg p "$project" '{
	projectId: $p, name: "The server is alive",
	steps: [{name: "alive", request: {method: "GET", url: "http://serve:3000/livez"},
		assertions: [{source: "status", operator: "equals", expected: 200},
			{source: "responseTime", operator: "lessThan", expected: 5000}]}]}')" | jq -er .id)
run=$(call POST "/api/tests/$test/execute" '{}' 'Prefer: wait=30' | jq -er '.runs[0].id')
detail=$(call GET "/api/runs/$run")
status=$(jq -er .status <<<"$detail")
[ "$status" = passed ] || fail "the run ended as $status: $detail"
say "the worker ran the test: $status in region $(jq -er .region <<<"$detail")"
events=$(call GET "/api/runs/$run/events" | jq -er '[.items[].type] | join(" ")')
say "events: $events"
[ "${events##* }" = run.finished ] || fail "the run's last event isn't run.finished"

"${compose[@]}" stop >/dev/null 2>&1
for service in worker serve postgres; do
	code=$(docker inspect -f '{{.State.ExitCode}}' "$("${compose[@]}" ps -q -a "$service" 2>/dev/null || "${compose[@]}" ps -q "$service")")
	[ "$code" = 0 ] || fail "$service ended with code $code when it was asked to stop"
done
say "stopped, each with exit code 0"
"${compose[@]}" start >/dev/null 2>&1
base=http://$("${compose[@]}" port serve 3000)
for _ in $(seq 60); do
	if curl -fsS -m 2 "$base/readyz" >/dev/null 2>&1; then break; fi
	sleep 1
done
[ "$(call GET "/api/runs/$run" | jq -er .status)" = passed ] || fail "the run is gone after a restart"
say "started again: the run is still there"

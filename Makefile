# TestFlow: what you type while working on it. `make` alone lists the targets.
#
# Nothing here needs root, Docker or a Postgres of yours: `make run` and `make test` find or get one. Tools are built
# from source at the versions that tools/go.mod pins, once, into a cache of your user.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go
# What is passed on: make run ARGS="--port 8080", make test PKG=./internal/run/... TESTFLAGS="-run TestStart -v".
ARGS ?=
PKG ?= ./...
TESTFLAGS ?=
# The program that runs the tests; .ci/run puts gotestsum here for its summary.
GOTEST ?= $(GO) test
TEST_TIMEOUT ?= 10m

# Pinned tools, one folder for each set of versions, so that two checkouts don't fight.
CACHE_HOME := $(or $(XDG_CACHE_HOME),$(if $(HOME),$(HOME)/.cache,$(CURDIR)/.cache))
TOOLS := $(CACHE_HOME)/testflow/tools/$(shell { $(GO) env GOVERSION; cat tools/go.mod; } | cksum | cut -d' ' -f1)
SQLC := $(TOOLS)/sqlc
OAPI_CODEGEN := $(TOOLS)/oapi-codegen
GOLANGCI_LINT := $(TOOLS)/golangci-lint
GOTESTSUM := $(TOOLS)/gotestsum
GOVULNCHECK := $(TOOLS)/govulncheck
BENCHSTAT := $(TOOLS)/benchstat

# One server for all packages: the wrapper finds or starts a Postgres, runs what follows and stops it again.
WITH_POSTGRES := $(GO) run ./internal/postgres/pgtest/pgwrap --

##@ Use it

.PHONY: run
run: build ## Build and start everything with a demo: API, worker, live stream, its own Postgres. Ctrl-C stops it all
	@exec bin/testflow up --demo $(ARGS)

.PHONY: migrate
migrate: build ## Bring the database of DATABASE_URL (or the embedded one) to this version's schema
	@exec bin/testflow migrate up $(ARGS)

.PHONY: build
build: ## Build the one binary, bin/testflow (static, no C compiler needed)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/testflow ./cmd/testflow

##@ Change it

.PHONY: test
test: ## Run all tests against a real Postgres that it finds by itself (it prints which one)
	@$(if $(filter ./...,$(PKG)),$(GOTEST) -tags faultpoints ./internal/fault)
	@$(WITH_POSTGRES) $(GOTEST) -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $(PKG)

.PHONY: test/race
test/race: ## The same under the race detector (slower; needs a C compiler)
	@command -v $${CC:-cc} >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || { echo "make test/race: the race detector needs a C compiler; install gcc or clang" >&2; exit 2; }
	@CGO_ENABLED=1 $(WITH_POSTGRES) $(GOTEST) -race -timeout 30m $(TESTFLAGS) $(PKG)

.PHONY: test/hostile
test/hostile: ## Make 10 000 runs against everything that a target can do to a client; goroutines, descriptors and memory stay flat (minutes)
	@TESTFLOW_TEST_HOSTILE_RUNS=$${TESTFLOW_TEST_HOSTILE_RUNS:-10000} $(GOTEST) -count 1 -v -run 'TestHostile_flat' -timeout 60m $(TESTFLAGS) ./internal/executor

.PHONY: attack
attack: ## Run the attacks: every test that plays an intruder (TestAttack…), against a real Postgres
	@$(WITH_POSTGRES) $(GOTEST) -timeout $(TEST_TIMEOUT) -run '^TestAttack' $(TESTFLAGS) $(PKG)

# How long each target runs, and how many at a time: make fuzz FUZZTIME=1m FUZZ=Schema.
FUZZTIME ?= 10m
FUZZPROCS ?= 1
FUZZ ?= .
FUZZPKG ?= ./internal/testspec ./internal/executor

.PHONY: fuzz
fuzz: ## Run every fuzz target of the language and the engine in turn, FUZZTIME (10m) each; what is found is kept in testdata/fuzz
	@for pkg in $(FUZZPKG); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' | grep -e '$(FUZZ)'); do \
			echo "fuzz: $$pkg $$target for $(FUZZTIME)"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -parallel $(FUZZPROCS) $$pkg || exit 1; \
		done; \
	done

.PHONY: guards
guards: ## Take each guard of .ci/guards away in turn and see its attack succeed: make guards GUARD=regexp
	@$(WITH_POSTGRES) $(GO) run ./internal/app/guards -run '$(GUARD)' $(ARGS)

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Look for mistakes and wrong formatting (golangci-lint with gofumpt; first time: minutes to build it)
	@$(GOLANGCI_LINT) run --allow-parallel-runners $(PKG)
	@$(GOLANGCI_LINT) fmt --diff $(if $(filter ./...,$(PKG)),,$(PKG))

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the Go code as lint wants it (gofumpt, import groups)
	@$(GOLANGCI_LINT) fmt

.PHONY: generate
generate: $(SQLC) $(OAPI_CODEGEN) ## Write again what is generated: Go code from sql/ and openapi/, docs/test-language.md
	@SQLC=$(SQLC) OAPI_CODEGEN=$(OAPI_CODEGEN) sh tools/generate.sh .

.PHONY: verify
verify: verify/generated verify/modules verify/vet verify/house ## Check that generated code is fresh, modules are tidy, go vet is quiet and the house stands as planned

.PHONY: verify/generated
verify/generated: $(SQLC) $(OAPI_CODEGEN)
	@SQLC=$(SQLC) OAPI_CODEGEN=$(OAPI_CODEGEN) sh tools/generate.sh --check

.PHONY: verify/modules
verify/modules:
	@$(GO) mod tidy -diff || { echo "make verify: go.mod or go.sum isn't tidy; run: go mod tidy" >&2; exit 1; }

.PHONY: verify/vet
verify/vet:
	@$(GO) vet ./...
	@$(GO) vet -tags faultpoints ./internal/fault ./internal/app

.PHONY: verify/house
verify/house:
	@$(GO) test -count=1 -run '^TestHouse' ./internal/app

.PHONY: audit
audit: $(GOVULNCHECK) ## Look up known vulnerabilities of the code that is called (needs the Go vulnerability database)
	@$(GOVULNCHECK) ./...

.PHONY: bench
bench: ## Measure this machine: events/s, runs/s, commit to socket, CPU and memory, beside bare baselines (minutes)
	@$(WITH_POSTGRES) sh -c "$(GO) test -run '^$$' -bench 'BenchmarkAppendRuns|BenchmarkRawUnnest' -benchtime 3s ./internal/eventstore && \
		$(GO) test -run '^$$' -bench 'BenchmarkOneCore|BenchmarkInFlight' -benchtime 1x ./internal/executor && \
		$(GO) test -run '^$$' -bench BenchmarkTake -benchtime 2s ./internal/ratelimit && \
		$(GO) test -run '^$$' -bench BenchmarkPlatform -benchtime 1x -timeout 20m $(ARGS) ./internal/app"

.PHONY: bench/audit
bench/audit: ## Make, seal, export and verify an audit log of a million events: rates and memory, beside bare ones (minutes)
	@TESTFLOW_AUDIT_EVENTS=$${TESTFLOW_AUDIT_EVENTS:-1000000} $(WITH_POSTGRES) $(GO) test -run TestExport_ofAnySize -count 1 -v -timeout 60m $(ARGS) ./internal/app

.PHONY: clean
clean: ## Remove what was built here. Your data stays
	@rm -rf bin .cache coverage.out
	@echo "removed bin/, .cache/ and coverage.out"
	@echo "kept: the data directory (TESTFLOW_DATA_DIR) and the built tools in $(CACHE_HOME)/testflow/tools"

##@ Tools

# Built without cgo, so that no C compiler is needed; quiet when they are there. nice, since golangci-lint takes every
# core for minutes.
define install
	@echo "building $(notdir $@) (once) ..." >&2
	@mkdir -p $(TOOLS)
	@cd tools && CGO_ENABLED=0 GOBIN=$(TOOLS) nice $(GO) install $(1)
endef

.PHONY: tools
tools: $(SQLC) $(OAPI_CODEGEN) $(GOLANGCI_LINT) $(GOTESTSUM) ## Build all pinned tools now instead of when they are first needed

$(SQLC):
	$(call install,github.com/sqlc-dev/sqlc/cmd/sqlc)
$(OAPI_CODEGEN):
	$(call install,github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen)
$(GOLANGCI_LINT):
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
$(GOTESTSUM):
	$(call install,gotest.tools/gotestsum)
$(GOVULNCHECK):
	$(call install,golang.org/x/vuln/cmd/govulncheck)
$(BENCHSTAT):
	$(call install,golang.org/x/perf/cmd/benchstat)

.PHONY: tools/path
tools/path: # prints where they are, for scripts
	@echo $(TOOLS)

.PHONY: help
help: ## This list
	@echo "TestFlow runs API tests and shows live what happens. New here? Type: make run"
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z\/]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Pass things on with ARGS, PKG and TESTFLAGS:  make test PKG=./internal/run/... TESTFLAGS='-run TestStart -v'"
	@echo "  Settings are environment variables:           bin/testflow config   lists them all"

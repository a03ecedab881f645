# Go and a C compiler (SQLite is compiled in) are all that is needed; the tests of PostgreSQL are
# skipped where it is not installed, and `make check` asks for it.
export CGO_ENABLED = 1
TOOL = go tool -modfile='$(CURDIR)/tools/go.mod'
LINT = $(TOOL) golangci-lint
VULN = $(TOOL) govulncheck
# The packages that start goroutines or guard data from them. The race detector finds nothing in the others.
CONCURRENT = $(shell grep -rlE '\<go func|errgroup|sync\.|sync/atomic' --include='*.go' registry internal migrate catalog cmd meter money | \
	xargs dirname | sort -ru | sed 's|^|./|')

.PHONY: help demo test race fuzz lint vuln generate erd check bench compiler
.DEFAULT_GOAL := help

help: compiler ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: compiler ## Run the gateway example on gateway.db; a second run continues
	go build -C examples/gateway -o ../../bin/gateway .
	./bin/gateway

test: compiler ## Run all tests
	@# The longest package comes first, and the others run beside it. Vet is one of the linters.
	@# Eight tests at a time, because many wait for servers; memory is there, so that garbage can wait. To link without
	@# debug information (-w) takes half as long.
	@# The other modules are tested meanwhile.
	(cd examples/gateway && go test -vet=off -ldflags=-w ./... && cd ../../tools && go test -vet=off ./...) & others=$$!; \
		GOGC=400 go test -vet=off -ldflags=-w -parallel 8 -timeout 20m ./registry ./... && wait $$others

race: compiler ## Run the tests of what starts goroutines with the race detector
	GOGC=400 go test -race -vet=off -ldflags=-w -parallel 4 -timeout 40m $(CONCURRENT)
	cd examples/gateway && go test -race -vet=off ./...

fuzz: compiler ## Fuzz each target for FUZZTIME (30s)
	.ci/fuzz

lint: ## Run the linters
	$(LINT) run ./...
	cd examples/gateway && $(LINT) run ./...
	cd tools && $(LINT) run ./...

vuln: ## Look for known vulnerabilities that our code reaches; asks vuln.go.dev
	$(VULN) ./...
	cd examples/gateway && $(VULN) ./...

generate: ## Generate ent/ and docs/graph.md anew from ent/schema
	find ent -mindepth 1 -maxdepth 1 ! -name schema ! -name generate.go -exec rm -rf {} +
	go generate ./ent
	go run ./cmd/ent-erd docs/graph.md

erd: ## Draw docs/graph.md from ent/schema
	go run ./cmd/ent-erd docs/graph.md

check: compiler ## Check that ent/schema and the migration files agree
	go run ./cmd/atlas-diff -check

bench: compiler ## Run the benchmarks; compare with benchstat -col /impl
	go test -run '^$$' -bench . -count 6 ./registry
	cd bench && go test -run '^$$' -bench RecordUsage -count 6

compiler:
	@command -v $$(go env CC) > /dev/null || { \
		echo 'A C compiler is needed, because SQLite is compiled in. Install one:'; \
		echo '  Debian, Ubuntu  apt-get install gcc libc6-dev'; \
		echo '  Fedora          dnf install gcc'; \
		echo '  Alpine          apk add gcc musl-dev'; \
		echo '  macOS           xcode-select --install'; \
		exit 1; }

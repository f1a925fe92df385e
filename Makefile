# Two commands matter on a new machine: `make demo` and `make test`. Go is all
# that they need; neither needs root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PROGRAMS := clmctl devagent pkg-offline
# The CA of the demo: lab, or step-ca.
CA ?= lab
# Time for each fuzz target of `make check`.
FUZZTIME ?= 20s
# The packages of `make bench`.
PKG ?= ./...

# The version comes from the repository, if this is one.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false)
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=$(VCS) -ldflags '-s -w'

.PHONY: help build demo test check lint fuzz bench soak generate generated cross peers clean

help:
	@echo 'make demo [CA=step-ca]  the whole of it on this machine, in a temporary folder'
	@echo 'make test               vet and tests, with the race detector where it can be had'
	@echo 'make check              test, lint, each fuzz target for $(FUZZTIME), generated files'
	@echo 'make build              the three programs into bin/'
	@echo 'make cross              the same for arm64, arm v7, arm v6; size of devagent'
	@echo 'make soak               ten thousand renewals; a thousand with the power failing; years of wrong clocks; a month of 1,000 devices; some hours'
	@echo 'make bench [PKG=...]    benchmarks'
	@echo 'make generate           completions and manual pages'
	@echo 'make peers              the servers that tests speak to, from source, once'

build:
	$(GOBUILD) -o bin/ $(addprefix ./cmd/,$(PROGRAMS))

# The demo against a peer fails without the peer; its tests are only skipped.
demo: build
ifneq ($(CA),lab)
	@go run ./scripts/peers -required
endif
	bin/clmctl demo --ca $(CA)

test: peers
	@scripts/test.sh

check: test lint generated fuzz

lint:
	@scripts/lint.sh

fuzz:
	@scripts/fuzz.sh $(FUZZTIME)

bench:
	go test -run '^$$' -bench . -benchmem $(PKG)

# Long runs; SOAK may set -renewals, -kills and -devices.
soak:
	go test -tags soak -run '^TestSoak' -v -timeout 6h ./test/e2e $(SOAK)
	go test -run '^TestCrash$$' -timeout 2h ./internal/agent -scattered 30
	go test -run '^TestYearsOfWrongClocks$$' -timeout 2h ./test/e2e -histories 1000 -rapid.checks 1000
	go test -run '^TestMonth$$' -v -timeout 2h ./internal/renewal -fleet 1000 -days 30
	go test -run '^TestDays$$' -v -timeout 1h ./test/e2e -real-fleet 48 -real-days 12
	go test -run '^TestEveryRule$$' ./internal/conformance -soak

generate:
	go run ./scripts/gendocs

generated:
	go run ./scripts/gendocs -check

cross:
	@for target in arm64 arm/7 arm/6; do \
		arch=$${target%/*}; dir=bin/linux-$${target/\//v}; \
		echo "building $$dir"; \
		GOOS=linux GOARCH=$$arch GOARM=$$([[ $$target = */* ]] && echo $${target#*/} || true) \
			$(GOBUILD) -o $$dir/ $(addprefix ./cmd/,$(PROGRAMS)); \
		scripts/size.sh $$dir/devagent 10000000; \
	done

peers:
	@go run ./scripts/peers

clean:
	rm -rf bin

#!/usr/bin/env bash
# test.sh [GO TEST ARGUMENTS] runs go vet and all tests, with the race detector
# if there is a C compiler for it, and says at the end what was skipped. Under
# EDGECLM_NO_SKIP=1 whatever is missing is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

race=-race
if ! CGO_ENABLED=1 go build -race -o /dev/null ./scripts/gotest 2>/dev/null; then
	echo "test: no C compiler, or none for the race detector: the tests run without it" >&2
	if [[ ${EDGECLM_NO_SKIP:-} == 1 ]]; then
		echo "test: EDGECLM_NO_SKIP=1 forbids that" >&2
		exit 1
	fi
	race=
fi

go vet ./...
CGO_ENABLED=${race:+1} go run ./scripts/gotest $race -shuffle=on -timeout 20m "${@:-./...}"
# Under the race detector these go in steps (keyfiletest.Step), since a pairing
# costs ten times as much there.
if [[ -n $race && $# -eq 0 ]]; then
	echo "test: cut at every operation, without the race detector"
	go run ./scripts/gotest -shuffle=on -timeout 20m -run 'Cut|Crash|Fails|Changes' ./internal/pkgen ./internal/cli/pkgoffline ./internal/receipt
fi

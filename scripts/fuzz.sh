#!/usr/bin/env bash
# fuzz.sh TIME runs each fuzz target of the module for that long. An input that
# breaks one is written to its package's testdata/fuzz, to be committed with the
# fix.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names = names " " $1 } /^ok/ { n = split(names, a, " "); for (i = 1; i <= n; i++) print $2, a[i]; names = "" }')
while read -r package target; do
	[[ -n $target ]] || continue
	echo "fuzz: $package $target"
	# Minimising each interesting input would eat the time of slow targets.
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 1x "$package"
done <<<"$targets"

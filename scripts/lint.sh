#!/usr/bin/env bash
# lint.sh [ARGUMENTS] runs golangci-lint at the version pinned here, which it
# builds once if need be. Without it (no network), a notice, or a failure under
# EDGECLM_NO_SKIP=1.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v2.15.0
gopath=$(go env GOPATH)

for linter in golangci-lint "${gopath%%:*}/bin/golangci-lint" "${gopath%%:*}/bin/golangci-lint-$version"; do
	if [[ $("$linter" version --short 2>/dev/null) == "${version#v}" ]]; then
		exec "$linter" run --allow-serial-runners "$@" ./...
	fi
done

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
echo "lint: building golangci-lint $version (once, a few minutes)" >&2
if ! GOBIN=$temp CGO_ENABLED=0 go install -trimpath "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"; then
	echo "lint: golangci-lint $version cannot be built: the code is not linted" >&2
	[[ ${EDGECLM_NO_SKIP:-} != 1 ]]
	exit
fi
mkdir -p "${gopath%%:*}/bin"
mv "$temp/golangci-lint" "${gopath%%:*}/bin/golangci-lint-$version"
"${gopath%%:*}/bin/golangci-lint-$version" run --allow-serial-runners "$@" ./...

#!/usr/bin/env bash
# size.sh FILE LIMIT fails if the file has LIMIT bytes or more.
set -euo pipefail

size=$(wc -c <"$1")
echo "$1: $size bytes, must stay under $2"
((size < $2))

#!/usr/bin/env bash
# Fuzzes every fuzz target of the module for the given time each.
# Usage: scripts/fuzz.sh 30s [package pattern]
set -euo pipefail
cd "$(dirname "$0")/.."
for_each="${1:-30s}"
go list "${2:-./...}" | while read -r pkg; do
  dir=$(go list -f '{{.Dir}}' "$pkg")
  grep -hoE '^func (Fuzz[A-Za-z0-9_]+)' "$dir"/*_test.go 2>/dev/null | awk '{print $2}' | while read -r target; do
    echo "== $pkg $target"
    go test "$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "$for_each"
  done
done

#!/usr/bin/env bash
# What a TaskManager starts as a worker (PROCESS environment): Beam's boot program, with
# a folder of its own for the worker binary that it fetches. Workers on one machine
# would overwrite each other's in the usual one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/advseg-worker.XXXXXX")
"${BEAM_BOOT:-$here/../../build/flink/boot}" --semi_persist_dir="$dir" "$@" &
boot=$!
trap 'kill "$boot" 2>/dev/null || true' TERM INT
trap 'rm -rf "$dir"' EXIT
wait "$boot"

#!/usr/bin/env bash
# What a TaskManager starts as a worker (PROCESS environment): Beam's boot program, with
# a folder of its own for the worker binary that it fetches and for what it writes where
# it is started. Workers on one machine would overwrite each other's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/advseg-worker.XXXXXX")
boot=$(realpath "${BEAM_BOOT:-$here/../../build/flink/boot}")
cd "$dir"
"$boot" --semi_persist_dir="$dir" "$@" &
pid=$!
trap 'rm -rf "$dir"' EXIT
trap 'kill "$pid" 2>/dev/null || true' TERM INT
# The boot program would wait for a TaskManager that was killed as long as it lives.
while kill -0 "$pid" 2>/dev/null && kill -0 "$PPID" 2>/dev/null; do
  sleep 1 &
  wait $! || true
done
kill "$pid" 2>/dev/null || true
wait "$pid"

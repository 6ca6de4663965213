#!/usr/bin/env bash
# What a TaskManager starts as a worker (PROCESS environment): Beam's boot program, with
# a folder of its own for the worker binary that it fetches and for what it writes where
# it is started. Workers on one machine would overwrite each other's.
#
# When the TaskManager ends it, or is gone, all of it ends. The boot program itself would
# leave the worker that it has started, and the copy of the binary that it makes in /tmp.
set -euo pipefail
set -m # the boot program has a process group of its own, and the worker is in it
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/advseg-worker.XXXXXX")
boot=$(realpath "${BEAM_BOOT:-$here/../../build/flink/boot}")
cd "$dir"
"$boot" --semi_persist_dir="$dir" "$@" &
group=$!

# A TaskManager gives half a second, then it kills. So does this at once: a worker may
# end at any moment and leaves nothing half done.
end() {
  kill -9 -- "-$group" 2>/dev/null || true
  rm -rf "$dir"
}
trap end EXIT
trap 'exit 0' TERM INT

# runs tells whether the worker runs, and removes the copy that it was started from:
# a running program needs its file's name no more.
runs() {
  local pids pid exe
  pids=$(cat "/proc/$group/task/"*/children 2>/dev/null || true)
  for pid in $pids; do
    exe=$(readlink "/proc/$pid/exe") || continue
    case $exe in /tmp/bin*/worker*) rm -rf "$(dirname "${exe% (deleted)}")" && return ;; esac
  done
  return 1
}

pause=0.1
while kill -0 "$group" 2>/dev/null && kill -0 "$PPID" 2>/dev/null; do
  if [ "$pause" = 0.1 ] && runs; then pause=1; fi
  sleep "$pause" &
  wait $! || true
done
kill -0 "$group" 2>/dev/null || wait "$group"

#!/usr/bin/env bash
# Does unlabelled data help? Trains the arms of grid.yaml on every 8th and on every
# 30th labelled image of a data set and prints a table for each.
#
#   scripts/ablation/run.sh IMAGES MASKS VAL_IMAGES VAL_MASKS OUT [MINUTES]
#
# The folders hold images and masks of the same names; CLASSES (11) and IGNORE (11)
# say what the masks hold, as for CamVid. With MINUTES it stops cleanly after so many;
# the same command goes on. What is trained lies in OUT. Both grids are trained at once,
# each with half of the cores: a training gets less than twice as fast with twice the
# cores. All takes about six hours of two cores, and ten with MINOR=3, which trains the
# arms that matter less with all three seeds too, not with one.
set -euo pipefail
if [ $# -lt 5 ]; then sed -n '2,/^set/p' "$0" | grep '^#' | cut -c3- >&2; exit 2; fi
here=$(cd "$(dirname "$0")" && pwd)
advseg=${ADVSEG:-$here/../../bin/advseg}
images=$1 masks=$2 val_images=$3 val_masks=$4 out=$5 minutes=${6:-0}
imports=(--classes "${CLASSES:-11}" --ignore "${IGNORE:-11}")

if [ ! -e "$out/val/classes.json" ]; then
  "$advseg" import --images "$val_images" --masks "$val_masks" "${imports[@]}" --out "$out/val"
fi
for every in 30 8; do
  if [ ! -e "$out/1-$every/data/classes.json" ]; then
    "$advseg" import --images "$images" --masks "$masks" "${imports[@]}" --labeled-every "$every" --out "$out/1-$every/data"
  fi
done

half=$(($(nproc) / 2))
export GOMAXPROCS=$((half > 0 ? half : 1)) MINOR_SEEDS=${MINOR:-1} VAL=$out/val
grids=()
for every in 30 8; do
  DATA="$out/1-$every/data" OUT="$out/1-$every" "$advseg" ablate --config "$here/grid.yaml" --minutes "$minutes" \
    >"$out/1-$every/table.txt" 2> >(sed -u "s/^/1-$every: /" >&2) &
  grids+=($!)
done
trap 'kill -INT "${grids[@]}" 2>/dev/null || true' INT TERM
status=0
for grid in "${grids[@]}"; do
  wait "$grid" || status=$?
  while kill -0 "$grid" 2>/dev/null; do wait "$grid" || status=$?; done # a signal ended the waiting only
done
for every in 30 8; do
  echo "== every ${every}th image has labels"
  cat "$out/1-$every/table.txt"
done
exit $status

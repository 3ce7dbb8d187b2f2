#!/usr/bin/env bash
# Reconstructs the middle slices of real volumes with several masks and methods, and prints one table.
#
#   benches/volumes.sh OUT_FOLDER VOLUME.nii.gz...
#
# RECON: the binary (default target/release/recon), TABLE: the example `table`; SEEDS, SLICES, OP, METHODS as below.
# A method is a sampler specification, with `+tune` for `--tune lambda`. JOBS runs go side by side, THREADS threads each.
set -euo pipefail
recon=${RECON:-target/release/recon}
table=${TABLE:-target/release/examples/table}
seeds=${SEEDS:-0 1 2 3 4}
count=${SLICES:-8}
op=${OP:-mri-4x}
methods=${METHODS:-projection l1-wavelet+tune}
jobs=${JOBS:-1}
export RAYON_NUM_THREADS=${THREADS:-$(nproc)}
out=$1
shift
mkdir -p "$out"

one() {
    local volume=$1 seed=$2 method=$3 slices stem
    slices=$("$recon" info "$volume" | awk -v n="$count" '$1 == "slices" { m = int($2 / 2 - n / 2); print m ":" m + n; exit }')
    stem=$(basename "$volume" .nii.gz)_seed${seed}_$(echo "$method" | tr -c 'a-z0-9\n' '_')
    local tune=()
    case $method in *+tune) tune=(--tune lambda) ;; esac
    "$recon" --op "$op:seed=$seed" --sampler "${method%+tune}" "${tune[@]}" --slices "$slices" --quiet --force \
        -o "$out/$stem.nii.gz" --preview "$out/$stem.png" "$volume"
}
export -f one
export recon count op out

for method in $methods; do
    for volume in "$@"; do
        for seed in $seeds; do
            printf '%s\0%s\0%s\0' "$volume" "$seed" "$method"
        done
    done
done | xargs -0 -n 3 -P "$jobs" bash -c 'one "$@"' _ 
"$table" "$out"/*.json

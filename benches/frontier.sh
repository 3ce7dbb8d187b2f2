#!/usr/bin/env bash
# The frontier: every sampler at a number of network evaluations, tuned on slices put aside, then measured on other volumes.
#
#   benches/frontier.sh OUT_FOLDER TUNING_INPUT VOLUME...
#
# One line per (evaluations, operator, noise, sampler), tab separated, in OUT_FOLDER/frontier.tsv: the specification that was found, the mean
# over the volumes of PSNR (dB), SSIM and LPIPS, and seconds of sampling. Cells that are there are not computed again.
# With variables: RECON (the binary), EVALUATIONS, OPS, NOISES, SAMPLERS, TRIALS, SLICES (of every volume, from its middle), DEVICE, JOBS
# cells side by side, THREADS each, GPUS they are dealt to in turn. Samplers that no evaluation counts for (l1-wavelet, tv) are tuned per image instead (--tune).
set -euo pipefail
export recon=${RECON:-target/release/recon} trials=${TRIALS:-16} slices=${SLICES:-4} device=${DEVICE:-auto} gpus=${GPUS:-1} out=$1 tuning=$2
evaluations=${EVALUATIONS:-20 100}
ops=${OPS:-mri-4x mri-8x sr-4x inpaint-box blur-gaussian}
noises=${NOISES:-0.01 0.05}
samplers=${SAMPLERS:-projection diffpir ddnm ddrm ccdf gaussian-guidance mmps pigdm dps mcg ilvr repaint red-diff lgd daps pnp-dm pnp-flow flowdps l1-wavelet tv zero-filled}
export RAYON_NUM_THREADS=${THREADS:-$(nproc)}
shift 2
export volumes="$*"
mkdir -p "$out/cells"

cell() {
    export CUDA_VISIBLE_DEVICES=$((slot % gpus))
    local n=$1 op=$2 noise=$3 sampler=$4 spec=$4 log files=() tune=() volume range line
    local name=$n-$op-$noise-$sampler
    [ -s "$out/cells/$name.tsv" ] && return
    log=$out/cells/$name.log
    : >"$log"
    case $sampler in
        l1-wavelet | tv) tune=(--tune lambda) ;;
        zero-filled) ;;
        *)
            if ! "$recon" tune --device "$device" --quiet --force --op "$op" --noise "$noise" --evaluations "$n" --sampler "$sampler" \
                --trials "$trials" -o "$out/cells/$name.json" "$tuning" >>"$log" 2>&1; then
                echo "$name: $(tail -n 1 "$log")" >&2
                return
            fi
            spec=$(sed -n 's/^  "sampler": "\(.*\)",$/\1/p' "$out/cells/$name.json" | head -n 1)
            ;;
    esac
    for volume in $volumes; do
        range=$("$recon" info "$volume" | awk -v n="$slices" '$1 == "slices" { m = int($2 / 2 - n / 2); print m ":" m + n; exit }')
        line=$out/cells/$name-$(basename "$volume").line
        if ! "$recon" --device "$device" --quiet --force --json --samples 1 --op "$op" --noise "$noise" --sampler "$spec" "${tune[@]}" \
            --slices "$range" -o "$out/cells/$name-$(basename "$volume")" "$volume" >"$line" 2>>"$log"; then
            echo "$name: $(tail -n 1 "$log")" >&2
            return
        fi
        files+=("$line")
    done
    # The first scores of a reconstruction in a line are those of its volume; slices follow.
    awk -v n="$n" -v op="$op" -v noise="$noise" -v sampler="$sampler" -v spec="$spec" '
        function number(text, key) {
            return match(text, "\"" key "\":[-0-9.eE+]+") ? substr(text, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : "nan"
        }
        {
            scores = match($0, /"reconstruction":\{"psnr":[^}]*\}/) ? substr($0, RSTART, RLENGTH) : ""
            psnr += number(scores, "psnr"); ssim += number(scores, "ssim"); lpips += number(scores, "lpips")
            seconds += number($0, "reconstruct_seconds")
        }
        END { printf "%s\t%s\t%s\t%s\t%s\t%.3f\t%.4f\t%.4f\t%.2f\n", n, op, noise, sampler, spec, psnr / NR, ssim / NR, lpips / NR, seconds }
    ' "${files[@]}" >"$out/cells/$name.tsv.new"
    mv "$out/cells/$name.tsv.new" "$out/cells/$name.tsv"
}
export -f cell

for n in $evaluations; do
    for op in $ops; do
        for noise in $noises; do
            for sampler in $samplers; do printf '%s\0%s\0%s\0%s\0' "$n" "$op" "$noise" "$sampler"; done
        done
    done
done | xargs -0 -n 4 -P "${JOBS:-1}" --process-slot-var=slot bash -c 'cell "$@"' _
{
    printf 'evaluations\toperator\tnoise\tsampler\tspecification\tpsnr\tssim\tlpips\tseconds\n'
    cat "$out"/cells/*.tsv | sort -t "$(printf '\t')" -k2,2 -k3,3 -k1,1n -k6,6nr
} >"$out/frontier.tsv"
cat "$out/frontier.tsv"

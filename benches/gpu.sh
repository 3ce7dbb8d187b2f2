#!/usr/bin/env bash
# Checks and timings on a machine with a GPU; the last lines are a table.
#
#   benches/gpu.sh               build here, then check and time here
#   benches/gpu.sh --pack DIR    build here, and put everything that --run needs into DIR (a GPU machine needs no Rust then)
#   benches/gpu.sh --run DIR     check and time what lies in DIR; DIR/gpu.sh is this script
#
# With variables: CHECKS=0 or TIMINGS=0 leaves a part out; VOLUME=FILE and SLICES=A:B say what is reconstructed (default: the
# bundled scan, all slices); BATCHES="1 8" are the batches of single steps; RIVAL_CODE=DIR, a checkout of
# github.com/DPS2022/diffusion-posterior-sampling, times PyTorch as well (PYTHON, with torch, and the folder benches/rivals, which
# --pack copies). Logs stay in OUT (default: a new temporary folder).
# A check that fails is listed in the table and makes the exit status 1.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The executable of one cargo target, from what cargo says it built: KIND (test, bench, lib) NAME CARGO-ARGUMENTS...
built() {
    local kind=$1 name=$2
    shift 2
    cargo "$@" --release --locked --no-run --message-format=json |
        grep '"reason":"compiler-artifact"' | grep "\"kind\":\[\"$kind\"\]" | grep "\"name\":\"$name\"" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

pack() {
    local to=$1 root=$here/.. file
    mkdir -p "$to"
    to=$(cd "$to" && pwd)
    cd "$root"
    cargo build --release --locked --bin recon
    cp "${CARGO_TARGET_DIR:-target}/release/recon" "$to/recon"
    put() { if [ -n "$2" ]; then cp "$2" "$to/$1"; else echo "cargo built no $1" >&2 && return 1; fi; }
    put check_network "$(built test cuda_network test -p recon --test cuda_network)"
    put check_training "$(built test cuda_training test -p recon --test cuda_training)"
    put check_samplers "$(built test cuda_samplers test -p recon --test cuda_samplers)"
    put check_generators "$(built test generators test -p recon --test generators)"
    put check_kernels "$(built lib recon test -p recon --lib)"
    put check_arrays "$(built test cuda test -p recon-operators --test cuda)"
    put check_operators "$(built test contract_cuda test -p recon-operators --test contract_cuda)"
    # `cargo bench` builds without --release.
    put time_steps "$(built bench cuda test -p recon --bench cuda)"
    for file in recon check_network check_training check_samplers check_generators check_kernels check_arrays check_operators time_steps; do
        strip "$to/$file" 2>/dev/null || true
    done
    cp datasets/data/brain-t1/brain_t1.nii.gz "$to/"
    mkdir -p "$to/rivals"
    cp benches/rivals/*.py "$to/rivals/"
    cp benches/gpu.sh "$to/gpu.sh"
    du -sh "$to"
}

failed=0
rows=()
row() { rows+=("$(printf '%-44s %s' "$1" "$2")"); }

# NAME COMMAND...: a check, with its log.
check() {
    local name=$1 log=$out/$1.log counts
    shift
    echo "== $name"
    if RECON_REQUIRE_GPU=1 RUST_TEST_NOCAPTURE=1 "$@" >"$log" 2>&1 && ! grep SKIPPED "$log"; then
        counts=$(grep -h '^test result' "$log" | tail -n 1 | sed 's/^test result: ok. //; s/; 0 measured.*//')
        row "check $name" "ok, ${counts:-no tests}"
    else
        failed=1
        tail -n 40 "$log"
        row "check $name" "FAILED: $(awk '/^failures:/ { names = "" } /^    [a-z_:0-9]+$/ { names = names $1 " " } END { printf "%s", names }' "$log")($log)"
    fi
}

# The number after the first "NAME": in a line of JSON.
field() { grep -o "\"$1\":[0-9.eE+-]*" | head -n 1 | cut -d: -f2; }

now() { date +%s.%N; }

# NAME OPTIONS...: the volume, with slices per second of sampling and the time of the whole command.
volume() {
    local name=$1 file=$out/${1//[^a-z0-9]/_} line started seconds samples images sampling slices=()
    shift
    [ -z "${SLICES:-}" ] || slices=(--slices "$SLICES")
    echo "== recon $*"
    started=$(now)
    if ! line=$("$dir/recon" --device cuda --json --force "${slices[@]}" -o "$file.nii.gz" "$@" "$volume" 2>"$file.log"); then
        failed=1
        tail -n 20 "$file.log"
        row "$name" "FAILED ($file.log)"
        return
    fi
    seconds=$(now)
    echo "$line" >"$file.line.json"
    images=$(field images <<<"$line") samples=$(field samples <<<"$line") sampling=$(field reconstruct_seconds <<<"$line")
    row "$name" "$(awk -v i="$images" -v n="$samples" -v s="$sampling" -v t="$seconds" -v b="$started" \
        'BEGIN { printf "%d slices x %d samples: %.2f slices/s (%.2f s of sampling, %.2f s in all)", i / n, n, i / n / (s > 0 ? s : 1), s, t - b }')"
}

run() {
    dir=$(cd "$1" && pwd)
    out=${OUT:-$(mktemp -d)}
    mkdir -p "$out"
    volume=${VOLUME:-$dir/brain_t1.nii.gz}
    echo "logs in $out"
    "$dir/recon" info --devices | tee "$out/devices.txt"
    row "device" "$(sed -n 's/^cuda:0 *//p' "$out/devices.txt")"
    if [ "${CHECKS:-1}" = 1 ]; then
        check arrays "$dir/check_arrays"
        check operators "$dir/check_operators"
        # What is emulated on the processor is checked where the sources and a compiler are.
        check kernels "$dir/check_kernels" cuda:: --skip emulated --test-threads 1
        check network "$dir/check_network" --test-threads 1
        check training "$dir/check_training" --test-threads 1
        check samplers "$dir/check_samplers"
        check generators "$dir/check_generators" on_a_gpu
    fi
    if [ "${TIMINGS:-1}" = 1 ]; then
        local model line
        for model in ffhq imagenet; do
            echo "== steps of $model"
            # shellcheck disable=SC2086
            if "$dir/time_steps" "$model" ${BATCHES:-1 8} 2>&1 | tee "$out/steps_$model.log"; then
                while read -r line; do row "${line%%: *}" "${line#*: }"; done < <(grep -E "^$model .*: .* ms" "$out/steps_$model.log")
            else
                failed=1
                row "steps of $model" "FAILED ($out/steps_$model.log)"
            fi
        done
        echo "== a step of training"
        if "$dir/time_steps" train brain-mr 64 2>&1 | tee "$out/training.log"; then
            while read -r line; do row "${line%%: *}" "${line#*: }"; done < <(grep -E "^train .*: .* ms" "$out/training.log")
        else
            failed=1
            row "a step of training" "FAILED ($out/training.log)"
        fi
        # The start: nearly all of a command with one step is context, compilation, plans and capture.
        local cache=$out/cache slices=${SLICES:-}
        SLICES=$("$dir/recon" info "$volume" | awk '$1 == "slices" { m = int($2 / 2); print m ":" m + 1; exit }')
        RECON_CACHE=$cache volume "start-up, cold cache" --quiet --samples 1 --sampler projection:steps=2
        RECON_CACHE=$cache volume "start-up, warm cache" --quiet --samples 1 --sampler projection:steps=2
        SLICES=$slices
        volume "default sampler" --quiet
        volume "dps:steps=1000" --quiet --samples 1 --sampler dps:steps=1000
        volume "dps:steps=1000, tf32" --quiet --samples 1 --sampler dps:steps=1000 --precision tf32
    fi
    if [ -n "${RIVAL_CODE:-}" ]; then
        for model in ffhq imagenet256; do
            echo "== PyTorch, $model"
            # shellcheck disable=SC2086
            "${PYTHON:-python3}" "$dir/rivals/guided_diffusion_step.py" --code "$RIVAL_CODE" --model "$model" --batch ${BATCHES:-1 8} |
                tee "$out/rival_$model.jsonl" || failed=1
            while read -r line; do
                row "PyTorch $(sed -n 's/.*"mode": "\([a-z]*\)", "model": "\([a-z0-9]*\)", "batch": \([0-9]*\), "precision": "\([a-z0-9]*\)", "layout": "\([a-z]*\)".*/\1 \2 batch \3 \4 \5/p' <<<"$line")" \
                    "$(sed -n 's/.*"milliseconds": \([0-9.]*\), "p10".*"peak_memory_mib": \([0-9.]*\).*/\1 ms, \2 MiB/p' <<<"$line")"
            done <"$out/rival_$model.jsonl"
        done
    fi
    echo
    printf '%s\n' "${rows[@]}"
    return $failed
}

case ${1:-} in
    --pack) pack "${2:?--pack DIR}" ;;
    --run) run "${2:?--run DIR}" ;;
    "")
        built_here=$(mktemp -d)
        trap 'rm -rf "$built_here"' EXIT
        (pack "$built_here")
        run "$built_here"
        ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
esac

#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: the tests marked `gpu`, the training throughput, engines' latency, the CamVid table.
#
#   benchmarks/gpu_check.sh                                    tests, throughput and latency
#   benchmarks/gpu_check.sh CAMVID WEIGHTS                     and CamVid: the data set's folder, MobileNetV2's state dict
#
#   PYTHON=.venv/bin/python    the interpreter; default: .venv's of this checkout, else python3
#   CAMVID=… WEIGHTS=…         instead of the two arguments
#   WORKSPACE=artifacts/camvid where CamVid's trainings lie; those that are there are not repeated
#   BACKBONES=mobilenet_v2,…   which networks CamVid trains; default: mobilenet_v2,resnet50,resnet101
#   RESNET50_WEIGHTS=…, RESNET101_WEIGHTS=…  files of their backbones; default: fetched by name
#   THROUGHPUT_ARGS=…          further options of throughput.py, such as --batch-size 8
#   LATENCY_ARGS=…             of latency.py, such as --seconds 10
#   RESULTS=benchmarks/results the folder of what is written
#
# Writes RESULTS/gpu-<GPU>-<date>.md, in which every part that failed or was left out is named. Exit codes: 0 all parts passed
# or were left out for want of CAMVID, 1 no GPU or a part failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

gpus=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null) || gpus=
if [ -z "$gpus" ]; then
    echo "no NVIDIA GPU: nvidia-smi is missing or finds none; run this on a machine that has one" >&2
    exit 1
fi

default_python=python3
[ -x .venv/bin/python ] && default_python=.venv/bin/python
PYTHON=${PYTHON:-$default_python}
CAMVID=${1:-${CAMVID:-}}
WEIGHTS=${2:-${WEIGHTS:-}}
WORKSPACE=${WORKSPACE:-artifacts/camvid}
BACKBONES=${BACKBONES:-mobilenet_v2,resnet50,resnet101}
RESULTS=${RESULTS:-benchmarks/results}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

gpu=$(head -n 1 <<<"$gpus" | cut -d, -f1)
name=$(tr -cs 'A-Za-z0-9\n' '-' <<<"$gpu" | sed 's/^-//; s/-$//')
today=$(date +%F)
mkdir -p "$RESULTS" || exit 1
page=$RESULTS/gpu-$name-$today.md
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rows=$scratch/rows
details=$scratch/details
: >"$rows"
: >"$details"
failures=0
home=${HOME:-}

torch=$("$PYTHON" -c 'import torch; print(torch.__version__, "with CUDA", torch.version.cuda, "finds", torch.cuda.device_count(), "GPUs")' \
    2>/dev/null) || torch="not importable"

machine() {
    while IFS= read -r line; do echo "- GPU, driver, memory: $line"; done <<<"$gpus"
    echo "- torch $torch"
    echo "- date: $today"
}

# row PART RESULT FIGURES: one line of the table
row() { printf '| %s | %s | %s |\n' "$1" "$2" "${3//|/\\|}" >>"$rows"; }

# last_line FILE: what a program said last, without this machine's folders
last_line() { grep -v '^[[:space:]]*$' "$1" | tail -n 1 | without_paths; }

without_paths() {
    local text
    text=$(cat)
    [ -n "$CAMVID" ] && text=${text//"$CAMVID"/CAMVID}
    [ -n "$WEIGHTS" ] && text=${text//"$WEIGHTS"/WEIGHTS}
    text=${text//"$scratch"/SCRATCH}
    text=${text//"$PWD"/.}
    [ "${#home}" -gt 1 ] && text=${text//"$home"/\~}
    printf '%s\n' "$text"
}

# detail TITLE FILE: a section below the table
detail() { { printf '\n## %s\n\n' "$1"; without_paths <"$2"; } >>"$details"; }

# run COMMAND…: its stdout to the file `out`, its stderr to `err` and to the terminal
run() {
    # shellcheck disable=SC2069  # stderr alone goes into the pipe
    "$@" 2>&1 >"$scratch/out" | tee "$scratch/err" >&2
    return "${PIPESTATUS[0]}"
}

# finish PART CODE FILE: the row of a part that ended with CODE and whose output is FILE
finish() {
    if [ "$2" = 0 ]; then
        row "$1" passed "$(last_line "$3")"
    else
        failures=$((failures + 1))
        row "$1" "FAILED, exit code $2" "$(last_line "$3")"
    fi
}

echo "GPU check"
machine

echo "== tests marked gpu"
"$PYTHON" -m pytest -m gpu -q -p no:cacheprovider 2>&1 | tee "$scratch/tests"
code=${PIPESTATUS[0]}
if [ "$code" = 5 ] || { [ "$code" = 0 ] && ! grep -q '[0-9] passed' "$scratch/tests"; }; then
    row "tests marked gpu" "NONE RAN" "$(last_line "$scratch/tests")"
    failures=$((failures + 1))
else
    finish "tests marked gpu" "$code" "$scratch/tests"
fi
{ echo '```'; cat "$scratch/tests"; echo '```'; } >"$scratch/fenced"
detail "Tests" "$scratch/fenced"

for backbone in resnet50 resnet101; do
    part="training throughput, $backbone"
    echo "== $part"
    # shellcheck disable=SC2086  # options are words
    run "$PYTHON" benchmarks/throughput.py --device cuda --backbone "$backbone" --batch-size 16 --crop 513 ${THROUGHPUT_ARGS:-}
    code=$?
    cat "$scratch/out"
    if [ "$code" = 0 ]; then finish "$part" 0 "$scratch/out"; else finish "$part" "$code" "$scratch/err"; fi
    [ -s "$scratch/out" ] && detail "Training throughput, $backbone" "$scratch/out"
done

part="latency of engines"
echo "== $part"
# shellcheck disable=SC2086  # options are words
run "$PYTHON" benchmarks/latency.py --to "$scratch/latency.md" ${LATENCY_ARGS:-}
finish "$part" "$?" "$scratch/err"
if [ -s "$scratch/latency.md" ]; then
    tail -n +3 "$scratch/latency.md" >"$scratch/latency"
    detail "Latency of engines" "$scratch/latency"
fi

if [ -z "$CAMVID" ] || [ -z "$WEIGHTS" ]; then
    row "CamVid" "left out" "needs CAMVID and WEIGHTS, see the top of benchmarks/gpu_check.sh"
else
    echo "== CamVid"
    given=(--backbone-weights "$WEIGHTS")
    [ -n "${RESNET50_WEIGHTS:-}" ] && given+=(--backbone-weights "resnet50=$RESNET50_WEIGHTS")
    [ -n "${RESNET101_WEIGHTS:-}" ] && given+=(--backbone-weights "resnet101=$RESNET101_WEIGHTS")
    run "$PYTHON" benchmarks/camvid.py --data "$CAMVID" "${given[@]}" --workspace "$WORKSPACE" --backbones "$BACKBONES" \
        --to "$scratch/camvid.md"
    finish "CamVid, $BACKBONES" "$?" "$scratch/err"
    if [ -s "$scratch/camvid.md" ]; then
        tail -n +3 "$scratch/camvid.md" >"$scratch/camvid"
        detail "CamVid" "$scratch/camvid"
    fi
fi

{
    printf '# GPU check: %s, %s\n\n' "$gpu" "$today"
    machine
    printf '\n| part | result | figures |\n|---|---|---|\n'
    cat "$rows" "$details"
} >"$scratch/page" && mv "$scratch/page" "$page" || exit 1
printf '\n'
cat "$rows"
echo "wrote $page"
[ "$failures" = 0 ]

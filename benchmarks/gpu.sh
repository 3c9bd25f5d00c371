#!/usr/bin/env bash
# Every figure that needs a GPU, kept in benchmarks/results under the card's name: at most 30 minutes on one card.
#   benchmarks/gpu.sh [NAME…]      all of them, or those named; PYTHON and PIPELINE_MEDIA as elsewhere.
# A benchmark that fails or exceeds its time is named at the end and does not keep the others from running.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
card=$("$python" - <<'PYTHON'
import re, sys, torch
if not torch.cuda.is_available():
    sys.exit("no GPU is present: nothing to measure here (make benchmarks measures the CPU)")
print(re.sub(r"[^a-z0-9]+", "_", torch.cuda.get_device_name().lower()).strip("_"))
PYTHON
) || exit 1
results=${RESULTS:-benchmarks/results}
mkdir -p "$results"
failed=()
measure() {
    local name=$1 seconds=$2 script=$3
    shift 3
    case " ${wanted[*]-} " in "  " | *" $name "*) ;; *) return ;; esac
    echo "== $name" >&2
    if timeout --kill-after=10 "$seconds" "$python" "benchmarks/$script.py" "$@" >"$results/.$name.part" && tail -n 1 "$results/.$name.part" | "$python" -m json.tool --compact --no-ensure-ascii >"$results/.$name.json"; then
        mv "$results/.$name.json" "$results/${name}_$card.json"
        cat "$results/${name}_$card.json"
    else
        failed+=("$name")
    fi
    rm -f "$results/.$name.part" "$results/.$name.json"
}
wanted=("$@")
# NAME SECONDS SCRIPT ARGUMENTS…; the seconds add up to 30 minutes. Compiling takes most of them.
measure tvl1 150 tvl1
measure raft 360 raft --compile
measure raft_eager 120 raft
measure flow_stage 180 flow_stage
measure training_step 420 training_step --sizes 16x112
measure training_step_64x224 420 training_step --sizes 64x224 --loss-steps 0
measure loader 150 loader
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }

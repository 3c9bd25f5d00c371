#!/usr/bin/env bash
# Every figure that needs a GPU, kept in benchmarks/results under the card's name: about 20 minutes on one card.
#   benchmarks/gpu.sh [NAME…]      all of them, or those named; PYTHON and PIPELINE_MEDIA as elsewhere.
# A benchmark that fails is named at the end and does not keep the others from running.
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
    local name=$1 script=$2
    shift 2
    case " ${wanted[*]-} " in "  " | *" $name "*) ;; *) return ;; esac
    echo "== $name" >&2
    if "$python" "benchmarks/$script.py" "$@" >"$results/.$name.part" && tail -n 1 "$results/.$name.part" | "$python" -m json.tool --compact --no-ensure-ascii >"$results/.$name.json"; then
        mv "$results/.$name.json" "$results/${name}_$card.json"
        cat "$results/${name}_$card.json"
    else
        failed+=("$name")
    fi
    rm -f "$results/.$name.part" "$results/.$name.json"
}
wanted=("$@")
measure tvl1 tvl1
measure raft raft --compile
measure raft_eager raft
measure flow_stage flow_stage
measure training_step training_step
measure loader loader
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }

"""The script that takes all figures of a GPU, with a stand-in for Python: what it runs, keeps and says."""

import json
import os
import re
import subprocess
from pathlib import Path

# Names the card when it is asked for, and answers as the benchmarks do: raft fails, flow_stage prints no JSON.
_PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
    "- ") echo some_card ;;
    "-m json.tool") exec python3 "$@" ;;
    */raft.py*) echo '{"half": ' ; exit 3 ;;
    */flow_stage.py*) echo "no figure" ;;
    *) echo "a remark"; echo "{\\"name\\": \\"$*\\"}" ;;
esac
"""


def test_one_failing_benchmark_does_not_stop_the_others(repository: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    results = tmp_path / "results"
    environment = os.environ | {"PYTHON": str(python), "RESULTS": str(results)}
    script = repository / "benchmarks" / "gpu.sh"
    outcome = subprocess.run([script], env=environment, capture_output=True, text=True)
    assert outcome.returncode == 1
    assert "failed: raft raft_eager flow_stage" in outcome.stderr
    kept = {"tvl1", "training_step", "training_step_64x224", "loader"}
    assert {path.name for path in results.iterdir()} == {f"{name}_some_card.json" for name in kept}
    large = json.loads((results / "training_step_64x224_some_card.json").read_text())
    assert large == {"name": "benchmarks/training_step.py --sizes 64x224 --loss-steps 0"}
    outcome = subprocess.run([script, "loader"], env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0 and outcome.stderr == "== loader\n"


def test_the_times_allowed_add_up_to_half_an_hour(repository: Path) -> None:
    text = (repository / "benchmarks" / "gpu.sh").read_text()
    assert sum(int(seconds) for seconds in re.findall(r"^measure \w+ (\d+) ", text, re.MULTILINE)) <= 1800

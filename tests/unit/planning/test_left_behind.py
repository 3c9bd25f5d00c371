"""What a killed run leaves behind is said when the next one is planned: its lock, and stages that still work."""

import subprocess
import sys
from pathlib import Path

from pipeline_lib.planning.left_behind import LOCKS, left_behind


def test_a_lock_without_a_snakemake_is_told_with_the_way_on(tmp_path: Path) -> None:
    assert left_behind(tmp_path) == ""
    (tmp_path / LOCKS).mkdir(parents=True)
    assert left_behind(tmp_path) == ""
    (tmp_path / LOCKS / "0.input.lock").touch()
    said = left_behind(tmp_path)
    assert "snakemake --unlock, then give the same command again. It goes on" in said
    # While another Snakemake works here, its lock is none that was left.
    script = tmp_path / "snakemake"
    script.write_text("input()")
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdin=subprocess.PIPE) as other:
        assert left_behind(tmp_path) == ""
        other.communicate(b"\n")


def test_a_stage_that_outlived_its_snakemake_is_named(tmp_path: Path) -> None:
    # It stands for a stage: the same words, started by this process and by no Snakemake.
    words = [sys.executable, "-c", "input()", "-m", "pipeline_lib", "train", "--output", "output/experiments/a/1-0"]
    with subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE) as orphan:
        said = left_behind(tmp_path)
        orphan.communicate(b"\n")
    assert said.startswith(f"Process {orphan.pid} (train) of an earlier run still makes output/experiments/a/1-0.")
    assert "nothing is done twice" in said
    assert left_behind(tmp_path) == ""

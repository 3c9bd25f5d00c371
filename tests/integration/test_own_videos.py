"""From twelve clips in two folders to a distilled network and a prediction: three commands, nothing written by hand."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import copy_sources


@pytest.mark.media
def test_three_commands_lead_from_a_folder_to_a_prediction(repository: Path, media: Path, tmp_path: Path) -> None:
    project = copy_sources(repository, tmp_path / "project")
    for label in ("carret", "up"):
        (tmp_path / "gestures" / label).mkdir(parents=True)
        for path in sorted((media / "egogestar" / "videos" / label).glob("*.mp4"))[:6]:
            shutil.copyfile(path, tmp_path / "gestures" / label / path.name)
    library = [sys.executable, "-m", "pipeline_lib"]

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    told = run(*library, "init", str(tmp_path / "gestures"), "--out", "my.yaml")
    # What it tells people to do next is what is done next, in small.
    (command,) = (line.split() for line in told.splitlines() if line.strip().startswith("snakemake "))
    run(sys.executable, "-m", *command, "--config", "trial=0.05")
    report = (project.output / "report" / "gestures.html").read_text()
    assert all(name in report for name in ("teacher_", "baseline_", "d3d_", "two_stream_"))
    metrics = json.loads(next(project.output.glob("evaluations/d3d_gestures/1-0/*/metrics.json")).read_text())
    assert metrics["num_videos"] == 4
    assert len(list(project.output.glob("frames/gestures/*/*.h5"))) == 2

    video = str(next((tmp_path / "gestures" / "up").iterdir()))
    found = json.loads(run(*library, "predict", video, "--experiment", "d3d_gestures", "--json"))
    assert "up" in json.dumps(found)

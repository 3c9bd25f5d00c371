"""The notebook runs from its first cell to its last on an output root as the demo leaves it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from small_tree import make_run, training_specification

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.data import FrameFormat, Generated
from pipeline_lib.configuration.specification import FramesSpecification
from pipeline_lib.generation.stage import generate
from pipeline_lib.manifests.shard_lists import write_shard_list
from pipeline_lib.media.frames_stage import extract_frames

NOTEBOOK = "docs/notebooks/first_look.ipynb"
# What the cells must have made, by the names that they give it.
MADE = """
assert abs(prediction.probabilities.sum() - 1) < 1e-6 and len(prediction.classes) == 3
assert frames.shape[0] == 12 and frames.shape[3] == 3 and frames.dtype == np.uint8
assert flow.shape == (2, *frames.shape[1:3]) and flow.dtype == np.float32 and np.abs(flow).max() > 0.1
assert [cam.experiment for cam in cams] == ["d3d_demo", "baseline_demo"]
assert all(cam.maps.shape == cam.frames.shape[:-1] for cam in cams) and len(plt.get_fignums()) == 2
for number in plt.get_fignums():
    plt.figure(number).savefig(f"{number}.png")
"""


def test_the_notebook_runs_and_is_kept_without_outputs(repository: Path, tmp_path: Path) -> None:
    book = nbformat.read(repository / NOTEBOOK, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(code) >= 5 and not any(cell.outputs or cell.execution_count for cell in code)
    (tmp_path / "docs/notebooks").mkdir(parents=True)
    (tmp_path / "Snakefile").touch()
    layout = Layout(tmp_path / "output")
    media = layout.root / "media/generated"
    generate("generated", Generated(num_train=8, num_validation=8, num_frames=12, short_side=64), media, 1)
    # The networks' frames say how the demo's videos were scaled.
    video = min((media / "validation").glob("*.mp4"))
    listed = tmp_path / "list.json"
    write_shard_list(listed, "tiny", "000", [{"id": "x", "path": str(video)}])
    frames = FramesSpecification(
        dataset="tiny", frame_format="small", frames=FrameFormat(short_side=64), on_decode_error="reject"
    )
    shard = layout.frames("tiny", "small", "000")
    shard.parent.mkdir(parents=True)
    extract_frames(frames, listed, shard, 1)
    for name in ("d3d_demo", "baseline_demo"):
        make_run(layout, training_specification(name))
    shutil.copyfile(repository / NOTEBOOK, tmp_path / NOTEBOOK)
    cells = "\n\n".join(cell.source for cell in nbformat.read(tmp_path / NOTEBOOK, as_version=4).cells if cell in code)
    environment = {**os.environ, "PYTHONPATH": str(repository), "MPLBACKEND": "Agg"}
    outcome = subprocess.run(
        [sys.executable, "-c", cells + MADE], cwd=tmp_path / "docs/notebooks", env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert "12 frames of " in outcome.stdout

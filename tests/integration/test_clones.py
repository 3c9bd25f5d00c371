"""Output in another clone: what is the same is not made again, what differs is, whatever the times of files."""

import os
import random
import shutil
from pathlib import Path

import pytest
from small_project import Project, copy_sources

OVERLAY = """
datasets:
  mine: {format: folder, videos: [videos], num_shards: 1, maximum_reject_share: 1.0}
frame_formats:
  short64_native: {short_side: 48, jpeg_quality: 90}
recipes:
  demo_rgb: &recipe
    schedule: {name: step, base_rate: 0.01, milestones: [], factor: 0.1}
    steps: 3
    global_batch: 4
    reestimate_batch_norm: 0
    sampling: {num_frames: 8, crop: 32, short_side: [40, 48]}
    checkpoint_steps: 20
  demo_flow: *recipe
experiments:
  teacher_mine:
    description: teacher
    stage: train_teacher
    dataset: mine
    frame_format: short64_native
    modality: flow
    motion: tvl1_small
    model: {name: s3dg_slim, options: {depth_multiplier: 0.0625}}
    recipe: demo_flow
    protocols: [two_clips]
  d3d_mine:
    description: student
    stage: distill
    dataset: mine
    frame_format: short64_native
    model: {name: s3dg_slim, options: {depth_multiplier: 0.0625}}
    recipe: demo_rgb
    teacher: teacher_mine
    objective: {name: distillation, weight: 100.0}
    protocols: [two_clips]
"""
ALL = {"manifest", "extract_frames", "extract_motion", "train_teacher", "distill", "evaluate_run", "write_report"}


@pytest.fixture(scope="module")
def done(repository: Path, media: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which everything has been made."""
    project = copy_sources(repository, tmp_path_factory.mktemp("clones") / "first")
    (project.folder / "small.yaml").write_text(OVERLAY)
    clips = sorted((media / "kinetics_sample/videos/train").glob("*.mp4"))
    chosen = [clip for clip in clips if clip.name.startswith(("aBs", "pAn"))]
    for number, clip in enumerate(chosen):
        folder = project.folder / "videos" / ("left", "right")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, folder / clip.name)
    outcome = project.succeed("d3d_mine")
    assert set(outcome.jobs) >= ALL
    return project


def clone(done: Project, folder: Path, keep_times: bool) -> Project:
    """Another clone with the same output and videos, and without Snakemake's memory."""
    project = copy_sources(done.folder, folder)
    shutil.copy2(done.folder / "small.yaml", folder / "small.yaml")
    copy = shutil.copy2 if keep_times else shutil.copyfile
    for name in ("output", "videos"):
        shutil.copytree(done.folder / name, folder / name, copy_function=copy)
    return project


def made(project: Project) -> set[str]:
    """The rules that a dry run would run, apart from the target."""
    return set(project.plan("d3d_mine").jobs) - {"d3d_mine"}


@pytest.mark.media
def test_a_copy_without_its_times_is_not_made_again(done: Project, tmp_path: Path) -> None:
    assert made(clone(done, tmp_path / "second", keep_times=False)) == set()


@pytest.mark.media
def test_times_alone_make_nothing_again(done: Project, tmp_path: Path) -> None:
    project = clone(done, tmp_path / "second", True)
    draw = random.Random(0)
    for path in sorted(project.output.rglob("*")) + sorted((project.folder / "videos").rglob("*")):
        if path.is_file():
            seconds = draw.uniform(1e9, 1.7e9)
            os.utime(path, (seconds, seconds))
    assert made(project) == set()


@pytest.mark.media
def test_an_edited_weight_counts_in_another_clone(done: Project, tmp_path: Path) -> None:
    project = clone(done, tmp_path / "second", keep_times=True)
    assert made(project) == set()
    project.edit("small.yaml", "weight: 100.0", "weight: 1.0")
    outcome = project.plan("d3d_mine")
    assert set(outcome.jobs) - {"d3d_mine"} == {"distill", "evaluate_run", "write_report"}
    assert "objective.weight was 100.0, is 1.0" in outcome.text


@pytest.mark.media
def test_an_edited_line_of_code_counts_in_another_clone(done: Project, tmp_path: Path) -> None:
    project = clone(done, tmp_path / "second", True)
    project.edit("pipeline_lib/flow/tvl1/method.py", "class ", "EDITED = True\n\n\nclass ")
    assert made(project) == ALL - {"manifest", "extract_frames"}


@pytest.mark.media
def test_a_new_video_and_a_new_class_are_noticed(done: Project, tmp_path: Path) -> None:
    project = clone(done, tmp_path / "second", True)
    folder = project.folder / "videos"
    first = next(path for path in sorted((folder / "left").iterdir()))
    shutil.copyfile(first, folder / "left" / "another.mp4")
    outcome = project.plan("d3d_mine")
    assert "manifest" in outcome.jobs
    assert "manifests/mine/summary.json: videos has changed" in outcome.text
    (folder / "left" / "another.mp4").unlink()
    assert made(project) == set()
    (folder / "up").mkdir()
    shutil.copyfile(first, folder / "up" / "one.mp4")
    assert "manifest" in made(project)


@pytest.mark.media
def test_an_equal_result_changes_nothing_behind_it(done: Project, tmp_path: Path) -> None:
    project = clone(done, tmp_path / "second", True)
    weights = {path: path.read_bytes() for path in sorted((project.output / "experiments").rglob("*.safetensors"))}
    # Another importer with the same result.
    project.edit("pipeline_lib/manifests/tables.py", "def read_folder", "EDITED = True\n\n\ndef read_folder")
    outcome = project.succeed("d3d_mine")
    assert "manifest" in outcome.jobs
    assert {path: path.read_bytes() for path in weights} == weights
    for log in sorted((project.output / "logs" / "train").rglob("*.log")):
        assert "is finished" in log.read_text() or "steps" in log.read_text()
    assert made(project) == set()


@pytest.mark.media
def test_what_is_touched_counts_as_equivalent_until_something_changes_again(done: Project, tmp_path: Path) -> None:
    project = clone(done, tmp_path / "second", True)
    project.edit("pipeline_lib/flow/tvl1/method.py", "class ", "EDITED = True\n\n\nclass ")
    assert "extract_motion" in made(project)
    project.succeed("d3d_mine", options=("--touch",))
    assert made(project) == set()
    project.edit("pipeline_lib/flow/tvl1/method.py", "EDITED = True", "EDITED = False")
    assert "extract_motion" in made(project)

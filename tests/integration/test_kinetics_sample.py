"""The main job on real video: from a small Kinetics tree with broken files to an evaluated D3D, with no other step."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from small_project import Project, copy_sources

OVERLAY = """
start: random
datasets:
  kinetics400:
    annotations: {{train: {media}/train.csv, validation: {media}/val.csv}}
    videos: [{media}/videos/train, {media}/videos/val]
    num_shards: 3
frame_formats:
  short256_25fps: {{short_side: 64}}
protocols:
  memorised: {{num_clips: 3, subset: train}}
recipes:
  d3d:
    source: memorises nine clips
    optimiser: {{name: sgd, momentum: 0.9, weight_decay: 1.0e-7}}
    schedule: {{name: step, base_rate: 0.03, milestones: [120], factor: 0.1}}
    steps: 140
    global_batch: 9
    batch_norm_batch: 9
    batch_norm_momentum: 0.1
    reestimate_batch_norm: 8
    dropout: 0.0
    sampling: {{num_frames: 8, crop: 48, resize: null, short_side: [48, 48]}}
experiments:
  teacher_k400: {{model: {{options: {{depth_multiplier: 0.125}}}}, protocols: [all_frames_250, memorised]}}
  baseline_k400: {{model: {{options: {{depth_multiplier: 0.125}}}}, protocols: [all_frames_250, memorised]}}
  d3d_k400:
    model: {{options: {{depth_multiplier: 0.125}}}}
    protocols: [all_frames_250, memorised]
    # At λ = 1 the student takes over what a teacher of nine clips confuses.
    objective: {{weight: 0.1}}
    # Longer: the student has the teacher's logits to learn beside the labels, and CPUs round differently.
    recipe_changes: {{schedule: {{milestones: [240]}}, steps: 260}}
"""


@pytest.fixture(scope="module")
def kinetics(media: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = copy_sources(repository, tmp_path_factory.mktemp("kinetics") / "project")
    (project.folder / "small.yaml").write_text(OVERLAY.format(media=media / "kinetics_sample"))
    project.succeed("distill_k400")
    return project


@pytest.mark.media
def test_every_listed_clip_is_accepted_or_has_its_own_reason(kinetics: Project) -> None:
    table = pd.read_parquet(kinetics.output / "manifests/kinetics400/manifest.parquet")
    assert Counter(table["status"]) == {"accepted": 12, "rejected": 6, "missing": 2}
    rejected = table[table["status"] == "rejected"]
    assert rejected["reason"].str.split(":").str[0].nunique() == 6, rejected["reason"].tolist()
    assert table[table["status"] == "missing"]["reason"].str.len().gt(0).all()
    summary = json.loads((kinetics.output / "manifests/kinetics400/summary.json").read_text())
    metrics = json.loads((kinetics.output / "evaluations/d3d_k400/1-0/all_frames_250/metrics.json").read_text())
    assert metrics["manifest"] == summary["digest"]
    assert metrics["num_videos"] == 3


@pytest.mark.media
@pytest.mark.parametrize("experiment", ["teacher_k400", "d3d_k400"])
def test_networks_know_their_own_training_clips(kinetics: Project, experiment: str) -> None:
    path = kinetics.output / "evaluations" / experiment / "1-0/memorised/metrics.json"
    metrics = json.loads(path.read_text())
    assert metrics["num_videos"] == 9
    assert metrics["metrics"]["video_top1"] == 1.0


@pytest.mark.media
def test_the_report_is_one_readable_file(kinetics: Project) -> None:
    text = (kinetics.output / "report/distill_k400.html").read_text()
    assert "d3d_k400" in text and "nOtOnDiSk10" in text
    assert 'src="http' not in text and 'href="http' not in text


@pytest.mark.media
def test_the_distilled_student_reads_no_flow(kinetics: Project, tmp_path: Path) -> None:
    copy = kinetics.copy(tmp_path / "project")
    scores = copy.output / "evaluations/d3d_k400/1-0/all_frames_250/scores.h5"
    original = scores.read_bytes()
    scores.unlink()
    for shard in (copy.output / "motion").rglob("*.h5"):
        shard.write_bytes(b"no flow here")
    copy.succeed(str(scores.relative_to(copy.folder)), options=("--allowed-rules", "evaluate_run"))
    assert scores.read_bytes() == original


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ("", "datasets.kinetics400.annotations.train is not set"),
        (
            "datasets: {kinetics400: {annotations: {train: absent/train.csv, validation: v.csv}, videos: [nowhere]}}",
            "absent/train.csv",
        ),
    ],
)
def test_missing_data_are_named_in_one_message(repository: Path, tmp_path: Path, overlay: str, told: str) -> None:
    project = copy_sources(repository, tmp_path / "project")
    if overlay:
        (project.folder / "small.yaml").write_text(overlay)
    outcome = project.run("distill_k400")
    assert outcome.status != 0
    assert told in outcome.text
    assert "docs/" in outcome.text
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ("datasets: {kinetics400: {num_shard: 4}}", "num_shards"),
        ("experiments: {d3d_demo: {teacher: teacher_dem}}", "teacher_demo"),
        ("experiments: {teacher_demo: {start: d3d_demo}}", "teacher_demo"),
    ],
)
def test_a_wrong_configuration_is_one_message(repository: Path, tmp_path: Path, overlay: str, told: str) -> None:
    project = copy_sources(repository, tmp_path / "project")
    (project.folder / "small.yaml").write_text(overlay)
    outcome = project.run("demo")
    assert outcome.status != 0
    assert told in outcome.text
    assert "Traceback" not in outcome.text

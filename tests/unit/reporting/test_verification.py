"""Bits that change and files that are cut: ``verify`` finds them in every artefact, and so does what reads it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.sealing import DamageError
from pipeline_lib.artefacts.stage import sidecar_path
from pipeline_lib.clips.index import build_index
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.runner import evaluate
from pipeline_lib.flow.motion_stage import extract_motion
from pipeline_lib.flow.strength_stage import measure_strength
from pipeline_lib.generation.stage import generate
from pipeline_lib.manifests.build import build_manifest, list_videos
from pipeline_lib.manifests.shard_lists import read_shard_list
from pipeline_lib.media.frames_stage import extract_frames
from pipeline_lib.media.shards import Shard
from pipeline_lib.media.strengths import read_strength_table
from pipeline_lib.planning.current import reconcile
from pipeline_lib.planning.plan import Plan, load_plan
from pipeline_lib.reporting import verification
from pipeline_lib.reporting.collect import collect
from pipeline_lib.reporting.page_file import check_page
from pipeline_lib.reporting.report import write_report
from pipeline_lib.reporting.verification import check_file, verify
from pipeline_lib.tasks.classification.scores import ScoreFile, pieces
from pipeline_lib.training.checkpoints import Checkpoints
from pipeline_lib.training.run import train
from pipeline_lib.training.weights import load_weights

OVERLAY = """
datasets:
  generated: {generated: {num_train: 6, num_validation: 4, num_frames: 10, short_side: 32}, num_shards: 1}
frame_formats:
  short64_native: {short_side: 32, jpeg_quality: 90}
motions:
  tvl1_small: {method: farneback, gap: 1, bound: 8.0, jpeg_quality: 95}
recipes:
  demo_flow:
    schedule: {name: step, base_rate: 0.01, milestones: [1], factor: 0.1}
    steps: 2
    global_batch: 2
    reestimate_batch_norm: 0
    sampling: {num_frames: 8, crop: 32, short_side: [32, 32]}
    checkpoint_steps: 1
    log_steps: 1
experiments:
  teacher_demo: {model: {options: {depth_multiplier: 0.0625}}}
targets:
  one: {description: One, experiments: [teacher_demo]}
"""


@dataclass(frozen=True)
class Project:
    """A whole small project: every stage has run."""

    layout: Layout
    plan: Plan

    def index(self) -> object:
        return build_index(self.layout, "generated", "short64_native", "tvl1_small", 1, 1, "train", True)


def make_project(root: Path) -> Project:
    overlay = root / "one.yaml"
    overlay.write_text(yaml.safe_dump({**yaml.safe_load(OVERLAY), "output": str(root / "output")}))
    plan = load_plan(Path(__file__).parents[3], [overlay])
    layout = plan.layout
    dataset = plan.configuration.datasets["generated"]
    generate("generated", dataset.generated, layout.media_folder("generated"), 2)  # type: ignore[arg-type]
    build_manifest(plan.manifest("generated"), layout.manifest_folder("generated"), 1)
    frames = layout.frames("generated", "short64_native", "000")
    extract_frames(plan.frames("generated", "short64_native"), layout.shard_list("generated", "000"), frames, 2)
    place = ("generated", "short64_native", "tvl1_small", "000")
    extract_motion(plan.motion(*place[:3]), frames, layout.motion(*place), 1)
    measure_strength(layout.motion(*place), layout.strength(*place))
    run = plan.run("teacher_demo")
    train(run.training, layout.root, run.folder)
    evaluate(run.evaluation("two_clips"), layout.root, run.scores("two_clips").parent, 1)
    write_report(plan.report("one"), layout.root, layout.report("one"))
    # A checkpoint, as a training leaves it that is not at its end.
    Checkpoints(run.folder / "checkpoints", "origin", 2).save(1, {"step": 1})
    return Project(layout, plan)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("whole"))


RUN = ("teacher_demo", "1", "0")
PLACE = ("generated", "short64_native", "tvl1_small", "000")
# Every kind of artefact: where it lies, and what the stages behind it read of it.
KINDS: dict[str, tuple[Callable[[Layout], Path], Callable[[Project, Path], object] | None]] = {
    "frames": (lambda at: at.frames(*PLACE[:2], "000"), lambda _, path: Shard(path).verify()),
    "motion": (lambda at: at.motion(*PLACE), lambda _, path: Shard(path).verify()),
    "strength": (lambda at: at.strength(*PLACE), lambda _, path: read_strength_table(path)),
    "manifest": (lambda at: at.manifest("generated"), lambda project, _: project.index()),
    "summary": (lambda at: at.summary("generated"), lambda project, _: project.index()),
    "shard list": (lambda at: at.shard_list("generated", "000"), lambda _, path: read_shard_list(path)),
    "weights": (lambda at: at.weights(*RUN), lambda _, path: load_weights(path)),
    "log": (
        lambda at: at.training_log(*RUN),
        lambda project, _: collect(project.plan.report("one"), project.layout.root).curves,
    ),
    "specification": (lambda at: at.experiment(*RUN) / "specification.json", None),
    "scores": (lambda at: at.scores(*RUN, "two_clips"), lambda _, path: list(pieces(ScoreFile(path)))),
    "metrics": (
        lambda at: at.metrics(*RUN, "two_clips"),
        lambda project, _: collect(project.plan.report("one"), project.layout.root).results,
    ),
    "report": (lambda at: at.report("one"), lambda _, path: check_page(path)),
    "checkpoint": (lambda at: at.experiment(*RUN) / "checkpoints/step_000000001.pt", None),
    "generated video": (
        lambda at: at.media_folder("generated") / "train/train_000000.mp4",
        lambda project, _: list_videos("generated", project.plan.dataset("generated")),
    ),
    "generated list": (
        lambda at: at.media_list("generated", "train"),
        lambda project, _: list_videos("generated", project.plan.dataset("generated")),
    ),
    "sidecar": (lambda at: sidecar_path(at.summary("generated")), None),
}


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """The bytes after one to three flipped bits, a cut, or a sector of zeros."""
    how = data.draw(st.sampled_from(["flip", "flip", "flip", "cut", "zero"]), label="how")
    where = data.draw(st.integers(0, len(content) - 1), label="where")
    if how == "cut":
        return content[:where]
    changed = bytearray(content)
    if how == "zero":
        changed[where : where + 512] = bytes(len(changed[where : where + 512]))
        return bytes(changed)
    for _ in range(data.draw(st.integers(1, 3), label="bits")):
        place = data.draw(st.integers(0, len(content) - 1), label="byte")
        changed[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    return bytes(changed)


def test_a_whole_project_is_sound_and_every_kind_is_checked(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["verify", str(project.layout.root), "--threads", "1"]) == 0
    text = capsys.readouterr().out
    num_files = sum(
        path.is_file() and path.name[0] != "." and "tensorboard" not in path.parts and ".cost" not in path.suffixes
        for path in project.layout.root.rglob("*")
    )
    assert f"{num_files} files" in text and "0 damaged, 0 missing" in text and "no checksum" not in text
    # Without sidecars the artefacts' own checksums are checked.
    monkeypatch.setattr(verification, "_expected", lambda paths: ({}, {}))
    found = verify(project.layout.root, 1)
    assert found.is_sound and {path.suffix for path in found.unknown} == {".mp4", ".csv"}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_by_verify_and_by_the_stage_that_reads(kind: str, project: Project) -> None:
    place, read = KINDS[kind]
    path, root = place(project.layout), project.layout.root
    content = path.read_bytes()
    whole = None if read is None else read(project, path)
    digests, _ = verification._expected(sorted(root.rglob("*.json")))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        changed = damaged(content, data)
        if changed == content:
            return
        path.write_bytes(changed)
        found = check_file(root, path, digests.get(path))
        assert found is not None and found[0] == "damaged" and "\n" not in found[1]
        if read is None:
            return
        try:
            again = read(project, path)
        except DamageError as error:
            text = str(error)
            assert str(path) in text and "damaged" in text and "Traceback" not in text and "\n" not in text
            assert f"snakemake --cores all --forcerun {project.layout.target(path)} -- " in text
        else:
            # A byte that nobody reads.
            assert repr(again) == repr(whole)

    try:
        check()
    finally:
        path.write_bytes(content)


def test_a_message_names_the_shard_the_video_and_the_command_and_the_stage_counts_no_video(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "output"
    shutil.copytree(project.layout.root, root)
    plan = load_plan(Path(__file__).parents[3], [project.layout.root.parent / "one.yaml"], {"output": str(root)})
    layout = plan.layout
    frames, motion = layout.frames(*PLACE[:2], "000"), layout.motion(*PLACE)
    video = Shard(frames).videos[3]
    content = bytearray(frames.read_bytes())
    frame = bytes(Shard(frames).read(3, 2, 3)[0])
    content[content.index(frame) + len(frame) // 2] ^= 4
    frames.write_bytes(content)
    motion.unlink()
    with pytest.raises(DamageError) as raised:
        extract_motion(plan.motion(*PLACE[:3]), frames, motion, 1, maximum_loss_share=1.0)
    message = str(raised.value)
    assert message.startswith(f"{frames} is damaged: video {video.id}, frame 2: ")
    assert message.endswith(f"snakemake --cores all --forcerun {frames} -- {frames}")
    assert not motion.exists()
    # Training reads it in another process; the message is the same, without that process's traceback.
    run = plan.run("teacher_demo")
    shutil.copy(project.layout.motion(*PLACE), motion)
    with h5py.File(motion, "r+") as file:
        file["blob"][...] = file["blob"][...] ^ 1
    for num_workers in (0, 1):
        with pytest.raises(UserError) as told:
            train(run.training, root, tmp_path / f"run{num_workers}", num_workers)
        assert isinstance(told.value.__cause__ or told.value, DamageError)
        assert f"{motion} is damaged: video " in str(told.value) and "Traceback" not in str(told.value)
    # verify tells both, and what it takes to make them again.
    frames_path = os.fspath(frames)
    assert main(["verify", str(root), "--threads", "2"]) == 1
    text = capsys.readouterr().out
    assert f"{frames_path}: video {video.id}, frame 2" in text and f"{motion}: video " in text
    assert f"  snakemake --cores all --forcerun {frames} {motion} -- {frames} {motion}" in text
    assert "2 damaged, 0 missing" in text


def test_the_next_run_makes_again_what_it_cannot_read_the_record_of(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "output"
    shutil.copytree(project.layout.root, root)
    plan = load_plan(Path(__file__).parents[3], [project.layout.root.parent / "one.yaml"], {"output": str(root)})
    frames, motion = plan.layout.frames(*PLACE[:2], "000"), plan.layout.motion(*PLACE)
    assert frames not in {one.artefact for one in reconcile(plan)}
    os.truncate(frames, frames.stat().st_size // 2)
    found = {one.artefact: one.reason for one in reconcile(plan)}
    assert "damaged" in found[frames] and motion not in found


def test_what_is_missing_beside_an_artefact_is_named(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "output"
    shutil.copytree(project.layout.root, root)
    layout = Layout(root)
    gone = [layout.metrics(*RUN, "two_clips"), layout.manifest("generated"), layout.training_log(*RUN)]
    for path in gone:
        path.unlink()
    found = verify(root, 1)
    assert [one.path for one in found.missing] == sorted(gone) and not found.damaged
    # Also where no sidecar tells it.
    for path in root.rglob("*.run.json"):
        path.unlink()
    assert [one.path for one in verify(root, 1).missing] == sorted(gone)
    assert [one.path for one in verify(root / "evaluations", 1).missing] == gone[:1]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "absent")]) == 2
    assert "there is no such folder" in capsys.readouterr().err

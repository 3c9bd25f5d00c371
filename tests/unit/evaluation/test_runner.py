"""The evaluation stage against clips that are cut and normalised here by other means."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from small_tree import CLASSES, CROP, HEIGHT, NUM_SHARDS, make_run, make_tree, training_specification
from torchvision.transforms.v2 import functional as reference
from whole_scores import whole

from pipeline_lib.artefacts.layout import Layout, shard_names
from pipeline_lib.cli import evaluate as evaluate_command
from pipeline_lib.clips import protocol_clips
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EnsembleSpecification, EvaluationSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation import runner
from pipeline_lib.evaluation.ensemble import evaluate_ensemble
from pipeline_lib.media.shards import Shard
from pipeline_lib.tasks import outputs
from pipeline_lib.tasks.classification.metrics import softmax
from pipeline_lib.tasks.classification.scores import ScoreFile, manifest_digest

VALIDATION = ["v04", "v05", "v06", "v07"]


@pytest.fixture
def tree(tmp_path: Path) -> Layout:
    return make_tree(tmp_path / "output")


def run_protocol(layout: Layout, modality: str = "rgb", name: str = "baseline", **options: object) -> SimpleNamespace:
    specification = EvaluationSpecification(
        training=training_specification(name, modality), protocol_name="p", protocol=Protocol.model_validate(options)
    )
    output = layout.evaluation(name, "1", "0", "p")
    runner.evaluate(specification, layout.root, output, 1)
    return whole(ScoreFile(output / "scores.h5"))


def stored_frames(layout: Layout, id: str) -> torch.Tensor:
    """uint8 (T, 3, H, W)."""
    for name in shard_names(NUM_SHARDS):
        shard = Shard(layout.frames("tiny", "small", name))
        if id in shard.index:
            row = shard.index[id]
            jpegs = shard.read(row, 0, shard.videos[row].num_frames)
            images = [simplejpeg.decode_jpeg(bytes(jpeg)) for jpeg in jpegs]
            return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    raise KeyError(id)


def network_logits(network: torch.nn.Module, frames: torch.Tensor) -> np.ndarray:
    clip = (frames.float() / 127.5 - 1).permute(1, 0, 2, 3)[None]
    with torch.no_grad():
        return network(clip)[0].numpy()


def of_video(scores: SimpleNamespace, id: str) -> np.ndarray:
    return np.flatnonzero(scores.video == scores.ids.index(id))


def test_rgb_clips_are_uniform_centre_crops_and_no_flow_is_read(tree: Layout) -> None:
    network = make_run(tree, training_specification("baseline"))
    assert not (tree.root / "motion").exists()
    scores = run_protocol(tree, num_clips=3)
    assert scores.ids == VALIDATION
    for id in VALIDATION:
        frames = reference.center_crop(stored_frames(tree, id), [CROP, CROP])
        rows = of_video(scores, id)
        last = len(frames) - 8
        assert scores.starts[rows].tolist() == [0, round(last / 2), last]
        for row, start in zip(rows, scores.starts[rows], strict=True):
            expected = network_logits(network, frames[start : start + 8])
            np.testing.assert_allclose(scores.logits[row], expected, atol=1e-3)
    # The logits must tell clips apart, or the comparison above compares nothing.
    assert scores.logits.std(axis=0).min() > 1e-2


def test_three_crops_cover_the_longer_side(tree: Layout) -> None:
    network = make_run(tree, training_specification("baseline"))
    scores = run_protocol(tree, num_clips=1, num_crops=3)
    for id, portrait in (("v04", False), ("v07", True)):
        frames = stored_frames(tree, id)
        rows = of_video(scores, id)
        assert scores.crops[rows].tolist() == [0, 1, 2]
        height, width = frames.shape[2:]
        assert (height > width) == portrait
        start = (len(frames) - 8) // 2
        for row in rows:
            offset = [0, (max(height, width) - CROP) // 2, max(height, width) - CROP][scores.crops[row]]
            across = (min(height, width) - CROP) // 2
            top, left = (offset, across) if portrait else (across, offset)
            clip = frames[start : start + 8, :, top : top + CROP, left : left + CROP]
            np.testing.assert_allclose(scores.logits[row], network_logits(network, clip), atol=1e-3)


def test_all_frames_is_one_clip_and_reverse_plays_backwards(tree: Layout) -> None:
    network = make_run(tree, training_specification("baseline"))
    forwards = run_protocol(tree, num_clips="all_frames")
    backwards = run_protocol(tree, num_clips="all_frames", reverse=True)
    for row, id in enumerate(VALIDATION):
        frames = reference.center_crop(stored_frames(tree, id), [CROP, CROP])
        np.testing.assert_allclose(forwards.logits[row], network_logits(network, frames), atol=1e-3)
        np.testing.assert_allclose(backwards.logits[row], network_logits(network, frames.flip(0)), atol=1e-3)
    assert np.abs(forwards.logits - backwards.logits).max() > 1e-2


def test_protocol_overrides_the_recipe(tree: Layout) -> None:
    network = make_run(tree, training_specification("baseline"))
    scores = run_protocol(tree, num_clips=1, num_frames=5, crop=HEIGHT, subset="train")
    assert scores.ids == ["v00", "v01", "v02", "v03"]
    frames = stored_frames(tree, "v00")
    start = (len(frames) - 5) // 2
    clip = reference.center_crop(frames[start : start + 5], [HEIGHT, HEIGHT])
    np.testing.assert_allclose(scores.logits[0], network_logits(network, clip), atol=1e-3)


def test_a_flow_network_sees_flow(tmp_path: Path) -> None:
    layout = make_tree(tmp_path / "output", motion=True)
    network = make_run(layout, training_specification("teacher", "flow"))
    shutil.rmtree(layout.root / "frames" / "tiny" / "small" / "ignored", ignore_errors=True)
    scores = run_protocol(layout, "flow", "teacher", num_clips=1)
    for row, id in enumerate(VALIDATION):
        value = 10 + int(id[1:])
        clip = torch.empty(1, 2, 8, CROP, CROP)
        clip[:, 0], clip[:, 1] = value / 127, -20 / 127
        with torch.no_grad():
            np.testing.assert_allclose(scores.logits[row], network(clip)[0].numpy(), atol=1e-3)


def test_metrics_count_what_was_not_evaluated(tree: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tree, training_specification("baseline"))
    specification = EvaluationSpecification(
        training=training_specification("baseline"), protocol_name="p", protocol=Protocol(num_clips=1)
    )
    record = runner.evaluate(specification, tree.root, tree.evaluation("baseline", "1", "0", "p"), 1)
    assert record["counts"] == {
        "listed": 6, "accepted": 4, "rejected": 1, "missing": 1, "evaluated": 4, "rejected_later": 0,
    }  # fmt: skip
    assert len(record["manifest"]) == 64
    assert record["provenance"]["inputs"]["experiments/baseline/1-0/weights.safetensors"]
    assert "manifest" in evaluate_command.describe(record)


def test_a_killed_evaluation_resumes_to_the_same_bytes(tree: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tree, training_specification("baseline"))
    monkeypatch.setattr(protocol_clips, "PIXELS_PER_BATCH", 3 * 8 * CROP * CROP)
    run_protocol(tree, num_clips=2)
    path = tree.evaluation("baseline", "1", "0", "p") / "scores.h5"
    whole = path.read_bytes()
    path.unlink()
    original = outputs.to_network_input
    calls = {"limit": 2, "made": 0}

    def killed_after_limit(*arguments: object) -> object:
        if calls["made"] == calls["limit"]:
            raise KeyboardInterrupt
        calls["made"] += 1
        return original(*arguments)

    monkeypatch.setattr(outputs, "to_network_input", killed_after_limit)
    with pytest.raises(KeyboardInterrupt):
        run_protocol(tree, num_clips=2)
    assert not path.exists()
    calls.update(limit=99, made=0)
    run_protocol(tree, num_clips=2)
    # 8 clips in batches of 3: two batches finished three videos, so only the last batch is left.
    assert calls["made"] == 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize("options", [{"num_clips": 10, "num_frames": 30}, {"num_clips": 7, "num_crops": 3, "crop": 40}])
def test_equal_clips_are_computed_once_and_stored_as_often_as_before(
    tree: Layout, monkeypatch: pytest.MonkeyPatch, options: dict[str, int]
) -> None:
    make_run(tree, training_specification("baseline"))
    original, seen = outputs.to_network_input, []

    def counted(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
        seen.append(len(batch["rgb"]))
        return original(batch, device)

    monkeypatch.setattr(outputs, "to_network_input", counted)
    # One clip in a batch: sums over a batch of another size may round differently.
    monkeypatch.setattr(protocol_clips, "PIXELS_PER_BATCH", 1)
    scores = run_protocol(tree, **options)
    clips = options["num_clips"] * options.get("num_crops", 1)
    assert len(scores.starts) == clips * len(VALIDATION)
    if "num_frames" in options:
        # Videos of 16 to 19 frames: ten times the same clip of 30.
        assert sum(seen) == len(VALIDATION)
        assert all(len(set(map(bytes, scores.logits[of_video(scores, id)]))) == 1 for id in VALIDATION)
    else:
        # 8 to 11 starts each, so that all seven differ; the crop is as high as the frame and not as wide.
        assert sum(seen) == clips * len(VALIDATION)
    path = tree.evaluation("baseline", "1", "0", "p") / "scores.h5"
    once = path.read_bytes()
    path.unlink()
    seen.clear()
    # As if every clip were one of its own.
    monkeypatch.setattr(protocol_clips, "first_equals", lambda requests, height, width: list(range(len(requests))))
    run_protocol(tree, **options)
    assert sum(seen) == clips * len(VALIDATION)
    assert path.read_bytes() == once


def test_the_recipe_s_resize_rate_and_end_reach_the_network(tree: Layout) -> None:
    specification = training_specification("baseline")
    sampling = specification.recipe.sampling.model_copy(
        update={"short_side": None, "resize": (36, 44), "stride": 2, "frames_per_second": 20.0, "past_end": "clamp"}
    )
    recipe = specification.recipe.model_copy(update={"sampling": sampling})
    specification = specification.model_copy(update={"recipe": recipe})
    network = make_run(tree, specification)
    output = tree.evaluation("baseline", "1", "0", "p")
    judged = EvaluationSpecification(training=specification, protocol_name="p", protocol=Protocol(num_clips=1))
    runner.evaluate(judged, tree.root, output, 1)
    scores = whole(ScoreFile(output / "scores.h5"))
    for row, id in enumerate(VALIDATION):
        frames = stored_frames(tree, id)
        # 25 frames a second at a stride of 2/20 s: 2.5 frames, a half rounded up; then the last one again.
        chosen = [0, 3, 5, 8, 10, 13, 15, 18]
        start = max(0, len(frames) - 19) // 2
        chosen = [min(start + frame, len(frames) - 1) for frame in chosen]
        small = [
            cv2.resize(frames[frame].permute(1, 2, 0).numpy(), (44, 36), interpolation=cv2.INTER_AREA)
            for frame in chosen
        ]
        clip = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)
        if frames.shape[2] > frames.shape[3]:
            # The portrait frame grows along x: bilinear there, after the average along y.
            tall = [cv2.resize(f.permute(1, 2, 0).numpy(), (40, 36), interpolation=cv2.INTER_AREA) for f in frames]
            wide = [cv2.resize(tall[frame], (44, 36), interpolation=cv2.INTER_LINEAR) for frame in chosen]
            clip = torch.from_numpy(np.stack(wide)).permute(0, 3, 1, 2)
        expected = network_logits(network, clip[:, :, 2 : 2 + CROP, 6 : 6 + CROP])
        np.testing.assert_allclose(scores.logits[row], expected, atol=1e-3)


def test_other_weights_start_afresh(tree: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tree, training_specification("baseline"))
    run_protocol(tree, num_clips=1)
    specification = training_specification("baseline", seed=5)
    folder = tree.experiment("baseline", "1", "0")
    make_run(tree, specification)
    shutil.copy(tree.weights("baseline", "1", "5"), folder / "weights.safetensors")
    with pytest.raises(UserError, match="baseline 1-5"):
        run_protocol(tree, num_clips=1)


def test_missing_pieces_are_named(tree: Layout) -> None:
    with pytest.raises(UserError, match=r"weights\.safetensors is missing"):
        run_protocol(tree, num_clips=1)
    make_run(tree, training_specification("baseline"), classes=("a", "b", "c"))
    with pytest.raises(UserError, match="abseiling"):
        run_protocol(tree, num_clips=1)


def test_an_ensemble_reads_score_files_only(tmp_path: Path) -> None:
    layout = make_tree(tmp_path / "output", motion=True)
    for name, modality in (("baseline", "rgb"), ("teacher", "flow")):
        make_run(layout, training_specification(name, modality))
        run_protocol(layout, modality, name, num_clips=2)
    for folder in ("frames", "motion", "experiments", "manifests"):
        shutil.rmtree(layout.root / folder)
    specification = EnsembleSpecification(
        experiment="rgb_flow",
        split=1,
        seed=0,
        members=["baseline/1-0", "teacher/1-0"],
        protocol_name="p",
        protocol=Protocol(num_clips=2),
    )
    output = layout.evaluation("rgb_flow", "1", "0", "p")
    record = evaluate_ensemble(specification, layout.root, output)
    members = [ScoreFile(layout.scores(name, "1", "0", "p")) for name in ("baseline", "teacher")]
    combined = ScoreFile(output / "scores.h5")
    expected = sum(softmax(whole(member).logits) for member in members) / 2
    np.testing.assert_allclose(softmax(whole(combined).logits), expected, atol=1e-6)
    assert record["members"] == ["baseline/1-0", "teacher/1-0"]
    assert record["manifest"] == manifest_digest(members[0])
    assert combined.classes == CLASSES
    first = (output / "scores.h5").read_bytes()
    evaluate_ensemble(specification, layout.root, output)
    assert (output / "scores.h5").read_bytes() == first

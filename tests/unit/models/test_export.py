"""The export command: safetensors, the card, and ONNX that onnxruntime computes as torch does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from small_tree import CLASSES, HEIGHT, WIDTH, frames_of, make_run, make_tree, training_specification

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.objectives import Model
from pipeline_lib.evaluation.prediction import _write_frames
from pipeline_lib.models.exporting import window_weights
from pipeline_lib.training.run import input_description
from pipeline_lib.training.weights import load_metadata, load_weights, save_weights


def trained(root: Path, **sampling: object) -> torch.nn.Module:
    """A run with everything that the trainer writes into its weights, and one evaluation."""
    layout = Layout(root)
    specification = training_specification("d3d")
    recipe = specification.recipe
    recipe = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update=sampling)})
    specification = specification.model_copy(update={"recipe": recipe})
    network = make_run(layout, specification)
    weights = layout.weights("d3d", "1", "0")
    described = input_description(specification, 0.0)
    save_weights(weights, load_weights(weights)[0], load_metadata(weights) | {"input": described})
    metrics = layout.metrics("d3d", "1", "0", "ten_clips")
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"num_videos": 6, "metrics": {"video_top1": 0.75}}))
    return network


def test_an_export_holds_the_network_its_card_and_checked_onnx(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = trained(tmp_path)
    assert main(["export", "d3d", "--root", str(tmp_path)]) == 0
    assert "model.onnx" in capsys.readouterr().out
    out = tmp_path / "exports" / "d3d" / "1-0"
    tensors, metadata = load_weights(out / "model.safetensors")
    assert metadata["classes"] == list(CLASSES)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in tensors.items())
    card = (out / "README.md").read_text()
    for words in ("s3dg_slim", "pixel / 127.5 − 1", "video_top1 0.75", '"base_rate": 0.1', *CLASSES):
        assert words in card
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    sampling = training_specification("d3d").recipe.sampling
    clip = np.random.default_rng(0).uniform(-1, 1, (3, 3, sampling.num_frames, sampling.crop, sampling.crop))
    clip = clip.astype(np.float32)
    found = session.run(["logits"], {"clip": clip})[0]
    with torch.no_grad():
        expected = network(torch.from_numpy(clip)).numpy()
    assert found.shape == (3, len(CLASSES))
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    # Length and size are free too, TensorFlow's padding notwithstanding.
    assert session.get_inputs()[0].shape == ["batch", 3, "frames", "height", "width"]
    for shape in ((1, 3, 5, 45, 50), (2, 3, 21, 64, 39)):
        clip = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(clip)).numpy()
        found = session.run(["logits"], {"clip": clip})[0]
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    _run_the_cards_code(out)


def _run_the_cards_code(out: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    _write_frames(frames_of(1, 12, HEIGHT, WIDTH), 25.0, out / "video.mkv")
    code = "\n".join(blocks).replace("video.mp4", "video.mkv")
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=out, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in CLASSES) and "(1, 3)" in done.stdout


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 13])
def test_what_a_traced_head_weighs_is_the_mean_over_its_windows(size: int) -> None:
    values = torch.rand(1, 1, size, generator=torch.Generator().manual_seed(size))
    windows = torch.nn.functional.avg_pool1d(values, min(7, size), 1).mean()
    torch.testing.assert_close((values[0, 0] * window_weights(size, 7)).sum(), windows)


def test_an_axis_that_the_network_fixes_is_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path)
    specification = training_specification("r2d")
    model = Model(name="r2d_18", options={"num_frames": 8, "width": 4})
    specification = specification.model_copy(update={"model": model})
    make_run(layout, specification)
    weights = layout.weights("r2d", "1", "0")
    described = input_description(specification, 0.0)
    save_weights(weights, load_weights(weights)[0], load_metadata(weights) | {"input": described})
    assert main(["export", "r2d", "--root", str(tmp_path)]) == 0
    assert "fixed frames: the network takes clips of exactly 8 frames" in capsys.readouterr().out
    out = tmp_path / "exports" / "r2d" / "1-0"
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 8, "height", "width"]
    assert "frames are fixed: the network takes clips of exactly 8 frames" in (out / "README.md").read_text()


def test_the_card_names_data_and_teacher(tmp_path: Path) -> None:
    layout = make_tree(tmp_path)
    teacher = training_specification("temporal", "flow")
    specification = training_specification("student", stage="distill", teacher=teacher)
    make_run(layout, specification)
    weights = layout.weights("student", "1", "0")
    described = input_description(specification, 0.0)
    save_weights(weights, load_weights(weights)[0], load_metadata(weights) | {"input": described})
    assert main(["export", "student", "--root", str(tmp_path), "--no-onnx"]) == 0
    card = (tmp_path / "exports" / "student" / "1-0" / "README.md").read_text()
    digest = load_metadata(weights)["provenance"]["beside"]["manifests/tiny/summary.json"]
    assert f"- Data: `tiny`, 3 classes, manifest `{digest[:16]}`" in card
    assert "- Teacher: `temporal` (`s3dg_slim`, sees flow of `tvl1`, trained on `tiny`), its loss weighted by" in card


def test_a_network_that_is_not_trained_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    assert main(["export", "s3dg_flow", "--root", str(tmp_path)]) == 2
    assert f"Trained below {tmp_path}: d3d/1-0." in capsys.readouterr().err


def test_an_export_without_onnx_needs_no_onnx(tmp_path: Path) -> None:
    trained(tmp_path)
    assert main(["export", "d3d", "--root", str(tmp_path), "--out", str(tmp_path / "there"), "--no-onnx"]) == 0
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["README.md", "model.safetensors"]
    assert "resized to a short side of 40–40 px for training" in (tmp_path / "there" / "README.md").read_text()


def test_the_card_says_how_resized_crops_were_taken(tmp_path: Path) -> None:
    trained(tmp_path)
    weights = Layout(tmp_path).weights("d3d", "1", "0")
    tensors, metadata = load_weights(weights)
    metadata["specification"]["recipe"]["sampling"] |= {"area": [0.3, 1.0], "aspect": [0.5, 2.0]}
    save_weights(weights, tensors, metadata)
    assert main(["export", "d3d", "--root", str(tmp_path), "--out", str(tmp_path / "there"), "--no-onnx"]) == 0
    card = (tmp_path / "there" / "README.md").read_text()
    assert "30–100 % of a frame" in card and "px for training" not in card


def test_the_card_says_which_frames_were_taken_and_how_they_were_resized(tmp_path: Path) -> None:
    def card(name: str, **sampling: object) -> str:
        trained(tmp_path / name, **sampling)
        assert main(["export", "d3d", "--root", str(tmp_path / name), "--no-onnx"]) == 0
        return (tmp_path / name / "exports" / "d3d" / "1-0" / "README.md").read_text()

    plain = card("plain")
    assert "8 frames, 1 apart; where the video has ended: the video again from its start; frames resized to a" in plain
    resized = card("r", short_side=None, resize=(36, 44), stride=8, frames_per_second=30.0, past_end="clamp")
    assert "8 frames, 8 apart in units of 1/30 second; where the video has ended: its last frame again" in resized
    assert "frames resized to 36 × 44 px (height × width, aspect not kept), then cropped." in resized
    assert "the middle ones of as many equal segments of the whole video" in card("s", spacing="segments")
    described = load_metadata(Layout(tmp_path / "r").weights("d3d", "1", "0"))["input"]
    taken = {"stride": 8, "frames_per_second": 30.0, "past_end": "clamp", "spacing": "stride", "resize": [36, 44]}
    assert {key: described[key] for key in taken} == taken and described["short_side"] is None

"""Public networks that predict as they are: imported from a file where downloads lie, refused with the ways out."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from small_tree import HEIGHT, WIDTH, frames_of

from pipeline_lib import load
from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.prediction import _write_frames
from pipeline_lib.models.importing import availability
from pipeline_lib.models.importing.sources import SOURCES

NAME = "torchvision/r2plus1d_18"


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """torchvision's R(2+1)D with random weights, and statistics under which its logits differ."""
    torch.manual_seed(3)
    found = torchvision.models.video.r2plus1d_18(weights=None)
    with torch.no_grad():
        found.fc.weight.mul_(40)
    return found.eval()


@pytest.fixture
def root(tmp_path: Path, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output root in which the file lies where downloads lie, under the name that its digest gives it."""
    folder = Layout(tmp_path / "output").public_checkpoints()
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "x.pth")
    digits = hashlib.sha256((folder / "x.pth").read_bytes()).hexdigest()[:8]
    url = f"https://download.pytorch.org/models/r2plus1d_18-{digits}.pth"
    (folder / "x.pth").rename(folder / url.rpartition("/")[2])
    source = SOURCES[NAME]
    monkeypatch.setitem(SOURCES, NAME, type(source)(**{**vars(source), "url": url}))
    monkeypatch.setattr(availability, "unreachable", lambda host: "no network")
    return tmp_path / "output"


def test_a_public_network_predicts_as_its_publishers_code_does(
    root: Path, network: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 16 frames of 15 a second: one clip is the whole video.
    frames = frames_of(1, 16, 128, 171)
    public = load(NAME, root, device="cpu")
    names = torchvision.models.video.R2Plus1D_18_Weights.DEFAULT.meta["categories"]
    assert public.classes == tuple(names)
    found = public.features(frames, "logits", frames_per_second=15.0)
    preset = torchvision.models.video.R2Plus1D_18_Weights.DEFAULT.transforms()
    with torch.no_grad():
        expected = network(preset(torch.from_numpy(frames).permute(0, 3, 1, 2))[None])
    # Ours went through a JPEG of quality 95.
    assert float((found - expected).abs().max()) < 0.1 * float(expected.std())
    assert int(found.argmax()) == int(expected.argmax())
    assert Layout(root).imported(NAME).is_file()
    _write_frames(frames, 15.0, tmp_path / "x.mkv")
    words = ["predict", str(tmp_path / "x.mkv"), "--weights", NAME, "--root", str(root), "--clips", "1"]
    assert main([*words, "--device", "cpu"]) == 0
    assert names[int(expected.argmax())] in capsys.readouterr().out.splitlines()[2]
    np.testing.assert_allclose(next(public.stream(frames)).probabilities.sum(), 1.0, atol=1e-6)


def test_without_file_and_network_the_three_ways_out_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(availability, "unreachable", lambda host: "no network")
    _write_frames(frames_of(1, 8, HEIGHT, WIDTH), 25.0, tmp_path / "x.mkv")
    assert main(["predict", str(tmp_path / "x.mkv"), "--weights", NAME, "--root", str(tmp_path / "output")]) == 2
    message = capsys.readouterr().err
    assert "download.pytorch.org cannot be reached (no network). There are three ways out: fetch https://" in message
    assert f"python -m pipeline_lib weights import {NAME} FILE --root {tmp_path}/output" in message
    assert "a file of your own" in message and "a trained experiment by its name" in message


def test_weights_without_a_classifier_of_videos_predict_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "mine.pth")
    root = str(tmp_path / "output")
    assert main(["weights", "import", "torchvision/resnet18", str(tmp_path / "mine.pth"), "--root", root]) == 0
    with pytest.raises(UserError, match="has no classifier of videos"):
        load("torchvision/resnet18", root)

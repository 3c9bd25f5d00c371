"""The command line: films, numbers and comparisons of real videos, and its messages."""

from pathlib import Path

import av
import cv2
import h5py
import numpy as np
import pytest

from pipeline_lib.__main__ import main

CLIP = Path("clips") / "flipping_a_pancake.mkv"
SMALL = ["--short-side", "64", "--frames", "5"]


@pytest.mark.media
@pytest.mark.parametrize("method", ["tvl1", "farneback", "frame_difference"])
def test_film_shows_frames_beside_colours(media: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "flow.mp4"
    assert main(["flow", str(media / CLIP), "--method", method, "--out", str(out), *SMALL]) == 0
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4 and frames[0].shape[0] == 64 and frames[0].shape[1] > 128
    left = frames[0][:, : frames[0].shape[1] // 2].astype(int)
    capture = cv2.VideoCapture(str(media / CLIP))
    source = cv2.resize(capture.read()[1][..., ::-1], left.shape[1::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(left - source).mean() < 12


@pytest.mark.media
def test_numbers_are_the_flow(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "flow.h5"
    assert main(["flow", str(media / CLIP), "--gap", "-2", "--out", str(out), *SMALL]) == 0
    with h5py.File(out) as file:
        assert file["motion"].shape[:2] == (3, 2) and file.attrs["gap"] == -2
        assert np.isfinite(file["motion"][:]).all() and np.abs(file["motion"][:]).max() > 0.05


@pytest.mark.media
def test_compare_prints_errors_and_draws_them(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compare.png"
    words = ["flow", "compare", str(media / CLIP), "--methods", "tvl1:library,tvl1:opencv,farneback", "--out", str(out)]
    assert main([*words, *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    means = [float(line.split("mean ")[1].split(" px")[0]) for line in lines[:2]]
    assert means[0] < 0.05 < means[1]
    image = cv2.imread(str(out))
    assert image.shape[0] == 128 and image[64:, : image.shape[1] // 4].max() == 0


@pytest.mark.media
def test_messages_instead_of_tracebacks(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = str(media / CLIP)
    cases = [
        (["flow", clip], "--out"),
        (["flow", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "a.mp4")], "none.mp4"),
        (["flow", clip, "--gap", "0", "--out", str(tmp_path / "a.mp4")], "--gap"),
        (["flow", clip, "--parameters", '{"lamda": 1}', "--out", str(tmp_path / "a.mp4"), *SMALL], "`lambda`"),
        (["flow", "compare", clip, "--methods", "tvl1,trl1"], "--methods"),
        (["flow", clip, "--gap", "9", "--out", str(tmp_path / "a.mp4"), *SMALL], "gap of 9 needs 10"),
    ]
    for words, expected in cases:
        assert main(words) == 2
        assert expected in capsys.readouterr().err

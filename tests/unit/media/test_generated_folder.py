"""The folder of a generated data set: videos, lists, marker."""

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.configuration.data import Dataset, Generated
from pipeline_lib.configuration.specification import ManifestSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.generation.stage import encode, generate
from pipeline_lib.generation.videos import draw_scene, render, true_flow

SMALL = Generated(num_train=24, num_validation=8, num_frames=6, seed=3)


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith((".lock", ".run.json"))
    }


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("generated") / "small"
    generate("small", SMALL, output, num_threads=2)
    return output


def test_lists_name_every_video_and_balance_the_classes(folder: Path) -> None:
    for subset, size in (("train", 24), ("validation", 8)):
        rows = _rows(folder / f"{subset}.csv")
        assert len(rows) == size
        assert all((folder / row["path"]).is_file() for row in rows)
        labels = [row["label"] for row in rows]
        assert len(set(labels)) == 8 and all(labels.count(label) == size // 8 for label in labels)
        assert labels == [draw_scene(SMALL, subset, index).label for index in range(size)]


def test_videos_decode_to_the_rendered_frames(folder: Path) -> None:
    sizes, rates, num_rotated = set(), set(), 0
    for index in range(SMALL.num_train):
        scene = draw_scene(SMALL, "train", index)
        with av.open(str(folder / f"train/train_{index:06d}.mp4")) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264" and stream.average_rate == scene.frames_per_second
            decoded = list(container.decode(stream))
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
        # PyAV gives the angle of the display matrix counter-clockwise: −90 is a clockwise quarter turn.
        assert {frame.rotation for frame in decoded} == {-90 if scene.rotated else 0}
        if scene.rotated:
            pictures = np.rot90(pictures, -1, axes=(1, 2))
            num_rotated += 1
        expected = render(scene)
        assert pictures.shape == expected.shape == (6, scene.height, scene.width, 3)
        assert np.abs(pictures.astype(int) - expected).mean() < 8  # 4:2:0 chroma of saturated colours
        sizes.add((scene.height, scene.width))
        rates.add(scene.frames_per_second)
    assert num_rotated > 0 and len(rates) >= 4
    assert any(height > width for height, width in sizes) and any(height < width for height, width in sizes)


def test_bytes_depend_on_the_seed_and_not_on_threads(folder: Path, tmp_path: Path) -> None:
    generate("again", SMALL, tmp_path / "again", num_threads=1)
    assert _files(tmp_path / "again") == _files(folder)
    generate("other", SMALL.model_copy(update={"seed": 4}), tmp_path / "other", num_threads=2)
    mine, other = _files(folder), _files(tmp_path / "other")
    assert all(mine[path] != other[path] for path in mine if path.endswith(".mp4"))


def test_marker_lists_every_file_and_comes_last(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = json.loads((folder / "generated.json").read_text())
    files = _files(folder)
    del files["generated.json"]
    assert marker["files"] == files
    assert marker["provenance"]["parameters"]["seed"] == 3 and marker["provenance"]["versions"]["ffmpeg"]

    # An interrupted run leaves no list and no marker of an earlier one; the next run completes and tidies up.
    output = tmp_path / "interrupted"
    generate("first", SMALL.model_copy(update={"num_train": 40}), output)
    calls = []

    def failing(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > 5:
            raise KeyboardInterrupt
        encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("pipeline_lib.generation.stage.encode", failing)
    with pytest.raises(KeyboardInterrupt):
        generate("second", SMALL, output)
    assert not (output / "generated.json").exists() and not list(output.glob("*.csv"))
    monkeypatch.undo()
    generate("second", SMALL, output)
    assert _files(output) == _files(folder)


def test_command_writes_videos_and_true_flow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = Generated(family="trajectories", num_train=2, num_validation=1, num_frames=4)
    specification = ManifestSpecification(name="tiny", dataset=Dataset(format="generated", generated=tiny))
    arguments = ["generate", "--output", str(tmp_path / "tiny"), "--threads", "2", "--flow", "--specification"]
    assert main([*arguments, specification.model_dump_json()]) == 0
    for subset, size in (("train", 2), ("validation", 1)):
        for index in range(size):
            stored = np.load(tmp_path / f"tiny/flow/{subset}/{subset}_{index:06d}.npz")
            flow, valid = true_flow(draw_scene(tiny, subset, index))
            assert np.array_equal(stored["flow"], flow) and np.array_equal(stored["valid"], valid)
    assert "flow/train/train_000000.npz" in json.loads((tmp_path / "tiny/generated.json").read_text())["files"]

    empty = ManifestSpecification(name="tiny", dataset=Dataset(format="generated"))
    assert main([*arguments, empty.model_dump_json()]) == 2
    assert "section `generated`" in capsys.readouterr().err
    assert main([*arguments, "{}"]) == 2
    assert "ManifestSpecification" in capsys.readouterr().err


def test_an_encoder_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho Unknown encoder libx264 >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(UserError, match=r"Unknown encoder libx264.*libx264"):
        encode(np.zeros((2, 32, 32, 3), np.uint8), 25, False, tmp_path / "video.mp4", broken)
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]

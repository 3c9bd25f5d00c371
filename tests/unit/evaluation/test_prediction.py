"""Prediction of an unseen file equals the evaluation of the same file when it is part of a data set."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from small_tree import CLASSES, HEIGHT, WIDTH, frames_of, make_run, make_tree, training_specification

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.protocol_clips import ProtocolClips, crop_places
from pipeline_lib.clips.sampling import StoredVideo
from pipeline_lib.configuration.data import FrameFormat, Motion
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import FramesSpecification, MotionSpecification
from pipeline_lib.configuration.training import Sampling
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.experiment import TrainedExperiment
from pipeline_lib.evaluation.prediction import Prediction, _write_frames, mean_prediction
from pipeline_lib.evaluation.trained import load_trained
from pipeline_lib.flow.motion_stage import extract_motion
from pipeline_lib.manifests.probing import probe_file
from pipeline_lib.manifests.shard_lists import write_shard_list
from pipeline_lib.media.frames_stage import extract_frames
from pipeline_lib.media.shards import Shard
from pipeline_lib.tasks.classification.metrics import softmax

FORMAT = FrameFormat(short_side=48, jpeg_quality=90)
FLOW = Motion(method="farneback", bound=8.0)


def predict(video: Path, weights: list[Path], protocol: Protocol, formats: list[FrameFormat]) -> Prediction:
    networks = [TrainedExperiment(load_trained(path), own) for path, own in zip(weights, formats, strict=True)]
    return mean_prediction([one.predict(video, protocol.num_clips) for one in networks])


def flow_training(name: str = "teacher"):
    return training_specification(name, "flow").model_copy(update={"motion": "farneback", "motion_kind": FLOW})


@pytest.fixture
def clip(media: Path) -> Path:
    return next(path for path in sorted((media / "kinetics_sample").rglob("*.mp4")) if path.stat().st_size > 50_000)


@pytest.mark.media
def test_rgb_prediction_equals_an_independent_reading(clip: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "output")
    network = make_run(layout, training_specification("baseline"))
    found = predict(clip, [layout.weights("baseline", "1", "0")], Protocol(num_clips=2), [FORMAT])
    # The same stages, called by hand; the clips are cut here.
    write_shard_list(tmp_path / "list.json", "d", "000", [{"id": "x", "path": str(clip)}])
    frames = FramesSpecification(dataset="d", frame_format="f", frames=FORMAT, on_decode_error="reject")
    extract_frames(frames, tmp_path / "list.json", tmp_path / "f.h5", 1)
    shard = Shard(tmp_path / "f.h5")
    total, height, width = (getattr(shard.videos[0], name) for name in ("num_frames", "height", "width"))
    expected = []
    for start in (0, total - 8):
        images = np.stack([simplejpeg.decode_jpeg(bytes(jpeg)) for jpeg in shard.read(0, start, start + 8)])
        expected.append((images, start))
    assert found.num_frames == total
    assert found.num_clips == 2
    assert found.probabilities.sum() == pytest.approx(1)
    scores = []
    for images, _ in expected:
        # Short side 48 → 40 (the recipe's), then the centre crop of 32.
        scale = 40 / min(height, width)
        size = (max(40, round(width * scale)), max(40, round(height * scale)))
        resized = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])
        top, left = round((size[1] - 32) / 2), round((size[0] - 32) / 2)
        cut = resized[:, top : top + 32, left : left + 32].astype(np.float32) / 127.5 - 1
        with torch.no_grad():
            scores.append(network(torch.from_numpy(cut).permute(3, 0, 1, 2)[None])[0].numpy())
    np.testing.assert_allclose(found.probabilities, softmax(np.stack(scores)).mean(axis=0), atol=1e-4)


@pytest.mark.media
def test_flow_prediction_computes_the_trainings_flow(clip: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "output")
    network = make_run(layout, flow_training())
    weights = layout.weights("teacher", "1", "0")
    small = FrameFormat(short_side=40, jpeg_quality=90)
    found = predict(clip, [weights], Protocol(num_clips=1), [small])
    again = predict(clip, [weights], Protocol(num_clips=1), [small])
    np.testing.assert_array_equal(found.probabilities, again.probabilities)
    # The same network on the motion stage's own output.
    write_shard_list(tmp_path / "list.json", "d", "000", [{"id": "x", "path": str(clip)}])
    frames = FramesSpecification(dataset="d", frame_format="f", frames=small, on_decode_error="reject")
    extract_frames(frames, tmp_path / "list.json", tmp_path / "f.h5", 1)
    motion = MotionSpecification(dataset="d", frame_format="f", motion="farneback", motion_kind=FLOW, device="cpu")
    extract_motion(motion, tmp_path / "f.h5", tmp_path / "m.h5", 1)
    shard = Shard(tmp_path / "m.h5")
    video = shard.videos[0]
    assert found.num_frames == video.num_frames
    # Stored at the recipe's short side, so that the clip is a plain cut: u over v, each padded to whole JPEG blocks.
    half, start = -(-video.height // 8) * 8, (video.num_frames - 8) // 2
    top, left = round((video.height - 32) / 2), round((video.width - 32) / 2)
    flow = np.empty((2, 8, 32, 32), dtype=np.float32)
    for position, jpeg in enumerate(shard.read(0, start, start + 8)):
        image = simplejpeg.decode_jpeg(bytes(jpeg), colorspace="GRAY")[..., 0].astype(np.float32)
        for channel in range(2):
            rows = slice(channel * half + top, channel * half + top + 32)
            flow[channel, position] = (image[rows, left : left + 32] - 128) / 127
    assert np.abs(flow).max() > 0.05
    with torch.no_grad():
        expected = softmax(network(torch.from_numpy(flow)[None]).numpy())[0]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)


@pytest.mark.media
def test_the_command_prints_a_table_or_json(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path / "output")
    make_run(layout, training_specification("baseline"))
    make_run(layout, flow_training())
    arguments = ["predict", str(clip), "--experiment", "baseline", "teacher", "--root", str(layout.root)]
    arguments += ["--clips", "2", "--threads", "1", "--short-side", "48", "--device", "cpu"]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [entry["class"] for entry in record["classes"]] != []
    assert {entry["class"] for entry in record["classes"]} <= set(CLASSES)
    assert sum(entry["probability"] for entry in record["classes"]) == pytest.approx(1, abs=1e-5)
    shares = [entry["probability"] for entry in record["classes"]]
    assert shares == sorted(shares, reverse=True)
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert record["classes"][0]["class"] in shown.splitlines()[2]


@pytest.mark.media
def test_unusable_files_are_refused_in_one_sentence(media: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "output")
    make_run(layout, training_specification("baseline"))
    weights = [layout.weights("baseline", "1", "0")]
    page = tmp_path / "page.mp4"
    page.write_text("<html>not found</html>")
    sample = media / "kinetics_sample/videos/train"
    refused = {
        page: "not a video: the file is an HTML or XML page",
        sample / "ZeRoBytes05_000000_000010.mp4": "empty: the file has 0 bytes",
        sample / "aUdIoOnLy08_000000_000010.mp4": "no video stream: the file holds audio",
    }
    for path in refused:
        shutil.copyfile(path, tmp_path / "copy.mp4")
        # The manifest's own word on the same file.
        assert probe_file(tmp_path / "copy.mp4", decode=True).problem == refused[path]
        with pytest.raises(UserError, match=rf"copy\.mp4 cannot be used: {refused[path]}."):
            predict(tmp_path / "copy.mp4", weights, Protocol(num_clips=1), [FORMAT])
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UserError, match="cannot be used: not a video: it is a pipe, not a file"):
        predict(tmp_path / "pipe.mp4", weights, Protocol(num_clips=1), [FORMAT])
    with pytest.raises(UserError, match="no such file"):
        predict(media / "absent.mp4", weights, Protocol(num_clips=1), [FORMAT])


@pytest.mark.media
def test_of_a_damaged_file_the_frames_that_decode_are_used_and_the_damage_is_said(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path / "output")
    make_run(layout, training_specification("baseline"))
    damaged = media / "kinetics_sample/videos/train/CoRrUpTeD04_000003_000013.mp4"
    found = predict(damaged, [layout.weights("baseline", "1", "0")], Protocol(num_clips=1), [FORMAT])
    assert found.num_frames == 49
    said = capsys.readouterr().err
    assert f"{damaged.name}: {probe_file(damaged, decode=True).problem}. The frames that decode are used." in said


def test_the_frame_format_comes_from_the_shards_or_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_tree(tmp_path / "output")
    make_run(layout, training_specification("baseline"))
    video = tmp_path / "x.mp4"
    video.write_bytes(b"")
    common = ["predict", str(video), "--root", str(layout.root)]
    assert main([*common, "--experiment", "absent"]) == 2
    assert "baseline/1-0" in capsys.readouterr().err
    # This tree's shards do not record a frame format.
    assert main([*common, "--experiment", "baseline"]) == 2
    assert "--short-side" in capsys.readouterr().err
    assert main([*common, "--experiment", "baseline", "--clips", "many"]) == 2
    assert "--clips many" in capsys.readouterr().err


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with two videos, one in a folder of its own, a text beside, and a file that is no video."""
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    for number, path in enumerate((folder / "a.mkv", folder / "more" / "b.mkv")):
        _write_frames(frames_of(number, 12, HEIGHT, WIDTH), 25.0, path)
    (folder / "bad.mp4").write_text("<html>not found</html>")
    (folder / "notes.txt").write_text("no video")
    return folder


def common(root: Path) -> list[str]:
    return ["--experiment", "baseline", "--root", str(root), "--short-side", str(HEIGHT), "--device", "cpu"]


def test_one_bad_file_of_a_folder_ends_no_other(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path / "output")
    make_run(layout, training_specification("baseline"))
    out = tmp_path / "predictions.csv"
    assert main(["predict", str(videos), *common(layout.root), "--out", str(out), "--top", "2"]) == 1
    printed = capsys.readouterr()
    assert "2 predictions, 1 without" in printed.out and "bad.mp4: not a video" in printed.err
    lines = list(csv.DictReader(io.StringIO(out.read_text())))
    names = [str(videos / name) for name in ("a.mkv", "bad.mp4", "more/b.mkv")]
    assert [line["video"] for line in lines] == [names[0], names[0], names[1], names[2], names[2]]
    assert [line["rank"] for line in lines] == ["1", "2", "", "1", "2"]
    assert lines[2]["problem"] == "not a video: the file is an HTML or XML page" and not lines[2]["class"]
    assert not any(line["problem"] for line in lines if line["rank"])
    alone = TrainedExperiment(load_trained(layout.weights("baseline", "1", "0")), FrameFormat(short_side=HEIGHT))
    name, share = alone.predict(names[0]).top(1)[0]
    assert (lines[0]["class"], float(lines[0]["probability"])) == (name, pytest.approx(share, abs=1e-6))
    as_json = tmp_path / "predictions.json"
    words = [f"{videos}/*.mkv", str(videos / "more" / "b.mkv"), f"{videos}/*.avi"]
    assert main(["predict", *words, *common(layout.root), "--out", str(as_json)]) == 1
    found = json.loads(as_json.read_text())
    assert [entry["video"] for entry in found] == [names[0], names[2], words[2]]
    assert found[0]["classes"][0] == {"class": name, "probability": pytest.approx(share, abs=1e-6)}
    assert found[2]["problem"] == "no file fits this pattern"


def test_what_comes_through_a_pipe_is_judged_window_by_window(videos: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "output")
    make_run(layout, training_specification("baseline"))
    _write_frames(frames_of(5, 20, HEIGHT, WIDTH), 25.0, tmp_path / "x.mkv")
    command = [sys.executable, "-m", "pipeline_lib", "predict", "-", *common(layout.root), "--every", "0.24", "--json"]
    with subprocess.Popen(["cat", str(tmp_path / "x.mkv")], stdout=subprocess.PIPE) as camera:
        done = subprocess.run(command, stdin=camera.stdout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    # Clips of 8 frames, one each 6 frames; at 25 frames a second.
    assert [entry["second"] for entry in found] == [8 / 25, 14 / 25, 20 / 25]
    # The first window's pixels are those of a file of these frames.
    _write_frames(frames_of(5, 20, HEIGHT, WIDTH)[:8], 25.0, tmp_path / "first.mkv")
    alone = TrainedExperiment(load_trained(layout.weights("baseline", "1", "0")), FrameFormat(short_side=HEIGHT))
    expected = alone.predict(tmp_path / "first.mkv", num_clips=1).top(3)
    assert [(one["class"], one["probability"]) for one in found[0]["classes"]] == [
        (name, pytest.approx(share, abs=1e-6)) for name, share in expected
    ]
    refused = subprocess.run(command, input=b"no video", capture_output=True, check=False)
    assert refused.returncode == 2 and b"error: standard input: undecodable" in refused.stderr


def test_words_that_do_not_fit_are_refused(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([], "Which network?"),
        (["--experiment", "a", "--out", "x.txt"], "must end in .csv or .json"),
        (["--experiment", "a", "--every", "0"], "--every 0"),
        (["--experiment", "a", "--short-side", "2"], "at least 16 pixels"),
        (["--weights", str(tmp_path / "absent.safetensors")], "absent.safetensors is missing"),
        (["--weights", "imported/mine", "--root", str(tmp_path)], "weights import SOURCE FILE"),
        (["--weights", "torchvision/r2plus1d", "--root", str(tmp_path)], "no source of weights is called"),
    ):
        assert main(["predict", str(videos), *words]) == 2, words
        assert message in capsys.readouterr().err
    assert main(["predict", "-", str(videos), "--experiment", "a"]) == 2
    assert "a stream is judged alone" in capsys.readouterr().err


def test_crops_and_batches() -> None:
    assert crop_places(1, 10, 20) == [(0.5, 0.5)]
    assert crop_places(3, 10, 20) == [(0.5, 0.0), (0.5, 0.5), (0.5, 1.0)]
    assert crop_places(3, 20, 10) == [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]
    lengths = [*[64] * 9, 250, 250, 300]
    index = cast(ClipIndex, SimpleNamespace(video=lambda row: StoredVideo(row, lengths[row], 256, 340)))
    sampling = Sampling(num_frames=64, crop=224)
    clips = ProtocolClips(index, Protocol(num_clips="all_frames"), sampling, ["rgb"], range(12))
    assert [[row for row, _ in batch] for batch in clips.batches()] == [list(range(8)), [8], [9, 10], [11]]
    assert [batch[0][0] for batch in clips.batches(lambda row: row < 9 or row == 11)] == [9]
    # A batch with one video that is not done is the batch of an undisturbed run.
    assert [[row for row, _ in batch] for batch in clips.batches(lambda row: row != 4)] == [list(range(8))]

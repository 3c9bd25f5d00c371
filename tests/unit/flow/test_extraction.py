"""The motion stage: same ids, order and rows; rejects, resumption, bytes."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_material import moving_frames, specification, textured, write_frames_shard

from pipeline_lib.artefacts.sealing import DamageError
from pipeline_lib.device import choose_device
from pipeline_lib.errors import UserError
from pipeline_lib.flow.motion_stage import extract_motion, motion_images
from pipeline_lib.flow.quantisation import Quantisation, decode_image
from pipeline_lib.media.shards import Shard


def decoded(shard: Shard, position: int) -> np.ndarray:
    video = shard.videos[position]
    quantisation = Quantisation.from_record(shard.record)
    rows = shard.read(position, 0, video.num_frames)
    return np.stack([quantisation.dequantise(decode_image(row, video.height)) for row in rows])


@pytest.mark.parametrize("method", ["tvl1", "farneback"])
@pytest.mark.parametrize("gap", [1, -2])
def test_stage_measures_known_motion(tmp_path: Path, method: str, gap: int) -> None:
    frames = write_frames_shard(
        tmp_path / "frames.h5",
        {
            "b-right": moving_frames(6, 60, 84, (2, 0)),
            "a-down": moving_frames(5, 60, 84, (0, 1)),
            "still": np.repeat(textured(60, 84)[None], 4, axis=0),
        },
    )
    extract_motion(specification(method=method, gap=gap), frames, tmp_path / "motion.h5", 2)
    shard, source = Shard(tmp_path / "motion.h5"), Shard(frames)
    assert [video.id for video in shard.videos] == [video.id for video in source.videos]
    assert [video.num_frames for video in shard.videos] == [video.num_frames for video in source.videos]
    assert [(video.height, video.width) for video in shard.videos] == [(60, 84)] * 3
    right, down, still = (decoded(shard, position) for position in range(3))
    centre = np.s_[:, :, 16:-16, 16:-16]
    np.testing.assert_allclose(np.median(right[centre], axis=(0, 2, 3)), [2 * gap, 0], atol=0.2)
    np.testing.assert_allclose(np.median(down[centre], axis=(0, 2, 3)), [0, gap], atol=0.2)
    # OpenCV's Farneback moves some border pixels of a still picture.
    assert np.abs(still if method == "tvl1" else still[centre]).max() == 0
    rows = [bytes(row) for row in shard.read(0, 0, 6)]
    parameters = shard.record["parameters"]
    if gap == 1:
        assert rows[5] == rows[4] and rows[4] != rows[3]
        assert parameters["boundary"] == {"rows": 1, "side": "end", "rule": "nearest row repeated"}
    else:
        assert rows[0] == rows[1] == rows[2] != rows[3]
        assert parameters["boundary"]["side"] == "start" and parameters["boundary"]["rows"] == 2
    assert parameters["quantisation"]["bound"] == 20.0
    assert shard.record["inputs"] == {source.path.name: source.record["content"]}


def test_unusable_videos_are_rejected_with_their_reason(tmp_path: Path) -> None:
    frames = write_frames_shard(
        tmp_path / "frames.h5",
        {
            "good": moving_frames(4, 32, 32, (1, 0)),
            "single": textured(32, 32)[None],
            "tiny": [textured(12, 40)] * 3,
            "last": moving_frames(3, 32, 32, (0, 1)),
        },
    )
    with pytest.raises(UserError, match=r"2 of 4 videos cannot be used \(50%; .*maximum_loss_share allows 40%"):
        extract_motion(specification(method="tvl1"), frames, tmp_path / "motion.h5", 1, maximum_loss_share=0.4)
    extract_motion(specification(method="tvl1"), frames, tmp_path / "motion.h5", 1, maximum_loss_share=0.5)
    shard = Shard(tmp_path / "motion.h5")
    assert [video.id for video in shard.videos] == ["good", "last"]
    assert "gap of 1 needs 2" in shard.rejected["single"]
    assert "40×12" in shard.rejected["tiny"]


def test_damage_of_the_frames_ends_the_stage_and_is_no_rejected_video(tmp_path: Path) -> None:
    path = write_frames_shard(
        tmp_path / "frames.h5", {"bad": moving_frames(3, 32, 32, (1, 0)), "good": moving_frames(3, 32, 32, (1, 0))}
    )
    import h5py

    with h5py.File(path, "r+") as file:
        first = int(file["offsets"][1])
        file["blob"][:first] = 0
    with pytest.raises(DamageError, match=r"frames\.h5 is damaged: video bad, frame 0: its bytes do not agree"):
        extract_motion(specification(method="farneback"), path, tmp_path / "motion.h5", 1)
    assert not (tmp_path / "motion.h5").exists()


def test_bytes_depend_on_nothing_but_the_inputs(tmp_path: Path) -> None:
    videos = {f"v{index}": moving_frames(5, 40, 48, (index % 3, 1), seed=index) for index in range(6)}
    frames = write_frames_shard(tmp_path / "frames.h5", videos)
    for name, threads in (("one", 1), ("two", 2)):
        extract_motion(specification(method="tvl1"), frames, tmp_path / f"{name}.h5", threads)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_killed_in_the_middle_goes_on(tmp_path: Path) -> None:
    videos = {f"v{index:02d}": moving_frames(8, 96, 128, (1, 0), seed=index) for index in range(16)}
    frames = write_frames_shard(tmp_path / "frames.h5", videos)
    wanted = specification(method="farneback", parameters={"num_iterations": 20})
    command = [sys.executable, "-m", "pipeline_lib", "extract-motion", "--threads", "1"]
    command += ["--specification", wanted.model_dump_json(), "--frames", str(frames)]
    output = tmp_path / "killed.h5"
    process = subprocess.Popen([*command, "--output", str(output)], stderr=subprocess.DEVNULL)
    journal = tmp_path / ".killed.h5.part" / "journal"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.is_file() and journal.read_bytes().count(b"\n") >= 2):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not output.exists()
    finished = journal.read_bytes().count(b"\n")
    assert 2 <= finished < len(videos)
    figures = extract_motion(wanted, frames, output, 1)
    assert figures["pairs"] == (len(videos) - finished) * 7
    extract_motion(wanted, frames, tmp_path / "whole.h5", 1)
    assert output.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_long_videos_are_computed_in_overlapping_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = write_frames_shard(tmp_path / "frames.h5", {"long": moving_frames(11, 32, 40, (1, 0))})
    wanted = specification(method="frame_difference", gap=3, bound=255.0)
    extract_motion(wanted, frames, tmp_path / "whole.h5", 1)
    from pipeline_lib.flow import frame_difference

    monkeypatch.setattr(frame_difference.FrameDifference, "pairs_per_call", lambda *_: 3)
    extract_motion(wanted, frames, tmp_path / "pieces.h5", 1)
    assert (tmp_path / "whole.h5").read_bytes() == (tmp_path / "pieces.h5").read_bytes()


class _SmallDevice:
    """Stands for a device whose memory holds two pairs: the real error, raised where a real one raises it."""

    quantisation = Quantisation(("u", "v"), 20.0)
    colour = False

    def __init__(self) -> None:
        self.calls: list[int] = []

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        num_pairs = len(frames) - abs(gap)
        self.calls.append(num_pairs)
        if num_pairs > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        means = torch.from_numpy(frames.astype(np.float32)).mean((1, 2))
        return (means[abs(gap) :] - means[:num_pairs])[:, None, None, None].expand(-1, 2, *frames.shape[1:])


def test_batch_is_halved_when_memory_runs_out(capsys: pytest.CaptureFixture[str]) -> None:
    frames = np.arange(8, dtype=np.uint8)[:, None, None].repeat(16, 1).repeat(16, 2) ** 2
    device = _SmallDevice()
    images = motion_images(device, frames, 1)  # type: ignore[arg-type]
    assert images[:, 0, 0].tolist() == [128 + round(127 * min(2 * t + 1, 20) / 20) for t in range(7)]
    assert max(device.calls) == 7 and device.calls.count(7) == 1
    assert "out of device memory with 7 pairs: going on with 3" in capsys.readouterr().err


def test_a_card_that_others_hold_rejects_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline_lib.flow import farneback, motion_stage

    videos = {f"v{index}": moving_frames(4, 32, 32, (1, 0), seed=index) for index in range(8)}
    frames = write_frames_shard(tmp_path / "frames.h5", videos)
    wanted = specification(method="farneback")
    extract_motion(wanted, frames, tmp_path / "whole.h5", 1)
    monkeypatch.setattr(motion_stage, "_WAITS", (0.01, 0.01))
    compute, calls, failing = farneback.Farneback.motion, [], [True]

    def motion(self: farneback.Farneback, images: np.ndarray, gap: int) -> torch.Tensor:
        calls.append(len(images))
        # Another process takes the memory after six videos, and gives it back after the job has failed.
        if failing[0] and len(calls) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return compute(self, images, gap)

    monkeypatch.setattr(farneback.Farneback, "motion", motion)
    output = tmp_path / "motion.h5"
    with pytest.raises(UserError, match=r"no room for one pair of 32×32 px .*Tried to allocate 2 GiB\)"):
        extract_motion(wanted, frames, output, 1)
    assert capsys.readouterr().err.count("waiting 0.01 s") == 2
    failing[0] = False
    figures = extract_motion(wanted, frames, output, 1)
    assert 0 < figures["videos_resumed"] <= 6
    assert Shard(output).rejected == {} and output.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_wrong_parameters_name_the_nearest(tmp_path: Path) -> None:
    frames = write_frames_shard(tmp_path / "frames.h5", {"v": moving_frames(3, 32, 32, (1, 0))})
    with pytest.raises(UserError, match="num_levels"):
        extract_motion(
            specification(method="farneback", parameters={"num_level": 3}), frames, tmp_path / "motion.h5", 1
        )
    with pytest.raises(ValueError, match="gap"):
        specification(method="farneback", gap=0)


def test_absent_gpu_is_a_warning_with_an_estimate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a machine with a GPU tests it too.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    frames = write_frames_shard(tmp_path / "frames.h5", {"v": moving_frames(3, 32, 32, (1, 0))})
    extract_motion(specification(device="cuda", method="farneback"), frames, tmp_path / "motion.h5", 1)
    message = capsys.readouterr().err
    assert "no CUDA device" in message and "min for the" in message
    assert choose_device("cuda", without_gpu="warn").type == "cpu"

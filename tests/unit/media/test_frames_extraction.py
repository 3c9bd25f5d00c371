"""The frames stage on real and on made videos."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.configuration.data import FrameFormat
from pipeline_lib.configuration.specification import FramesSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.shard_lists import write_shard_list
from pipeline_lib.media import frames_stage as extraction
from pipeline_lib.media.decoder import DecodingOptions, decode_video
from pipeline_lib.media.ffmpeg import ffmpeg_executable, ffmpeg_version
from pipeline_lib.media.frames_stage import extract_frames, extract_video
from pipeline_lib.media.shards import Shard


def _specification(on_decode_error: str = "reject", **changes: Any) -> FramesSpecification:
    frames = FrameFormat(**({"short_side": 256} | changes))
    return FramesSpecification(dataset="d", frame_format="f", frames=frames, on_decode_error=on_decode_error)


def _list(path: Path, files: list[Path], **more: Any) -> Path:
    digests = [file_digest(file) if file.is_file() else "" for file in files]
    videos = [
        {"id": f"{index:02d}", "path": str(file), "digest": digests[index]} | more for index, file in enumerate(files)
    ]
    write_shard_list(path, "d", "000", videos)
    return path


def _make(path: Path, *arguments: str, size: str = "96x64", seconds: float = 1.0, rate: str = "25") -> Path:
    source = ["-f", "lavfi", "-i", f"testsrc=size={size}:rate={rate}:duration={seconds}"]
    subprocess.run([ffmpeg_executable(), "-v", "error", "-y", *source, *arguments, str(path)], check=True)
    return path


def _decode(jpegs: Any) -> np.ndarray:
    return np.stack([simplejpeg.decode_jpeg(bytes(jpeg)) for jpeg in jpegs])


@pytest.mark.media
@pytest.mark.parametrize(
    ("file", "shape"),
    [
        ("clips/abseiling.mp4", (125, 256, 452)),
        ("clips/airdrum.mp4", (150, 360, 204)),
        ("clips/flipping_a_pancake.mkv", (310, 240, 426)),
        ("broken/video_90.mov", (3, 454, 256)),
    ],
)
def test_real_clips_against_pyav(media: Path, file: str, shape: tuple[int, int, int]) -> None:
    """Every frame is there, in order, turned, scaled (never up) and of the colours that PyAV finds."""
    video = extract_video({"id": "v", "path": str(media / file)}, _specification(jpeg_quality=95))
    assert (len(video.frames), video.height, video.width) == shape
    with av.open(str(media / file)) as container:
        stream = container.streams.video[0]
        assert video.frames_per_second == float(stream.average_rate)
        expected = []
        for frame in container.decode(stream):
            turned = np.rot90(
                frame.to_ndarray(format="rgb24"), k=-round(frame.rotation / -90) % 4 if frame.rotation else 0
            )
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="rgb24")
            expected.append(picture.reformat(shape[2], shape[1], interpolation="BICUBIC").to_ndarray(format="rgb24"))
    error = np.abs(_decode(video.frames).astype(int) - np.stack(expected))
    assert error.mean() < 2.5 and error.mean(axis=(1, 2, 3)).max() < 4


def test_colours_are_those_of_the_source(tmp_path: Path) -> None:
    """Limited-range BT.709 becomes the full-range BT.601 of a JPEG: pure colours stay pure."""
    for name, rgb in {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}.items():
        for matrix in ("bt709", "smpte170m"):
            path = tmp_path / f"{name}_{matrix}.mp4"
            # swscale's name of SMPTE 170M's matrix is bt601.
            conversion = (
                f"scale=out_color_matrix={'bt709' if matrix == 'bt709' else 'bt601'}:out_range=tv,format=yuv420p"
            )
            source = ["-f", "lavfi", "-i", f"color={name}:size=64x48:rate=25:duration=0.2,format=rgb24"]
            coding = ["-vf", conversion, "-colorspace", matrix, "-color_range", "tv", "-c:v", "libx264", "-qp", "1"]
            subprocess.run([ffmpeg_executable(), "-v", "error", *source, *coding, str(path)], check=True)
            video = extract_video({"id": "v", "path": str(path)}, _specification(jpeg_quality=95))
            assert np.abs(_decode(video.frames).astype(int) - rgb).max() <= 6, path.name


@pytest.mark.parametrize("color_range", ["tv", "pc"])
def test_either_range_becomes_full(tmp_path: Path, color_range: str) -> None:
    """Every level of a lossless grey ramp, those below black and above white too, against the formula of BT.601."""
    levels = np.arange(256, dtype=np.uint8)
    raw = tmp_path / "ramp.yuv"
    luma = np.tile(levels, (16, 1))
    raw.write_bytes(
        (luma.tobytes() + np.tile(levels[::2], (8, 1)).tobytes() + np.full((8, 128), 128, "u1").tobytes()) * 2
    )
    path = tmp_path / "ramp.mkv"
    source = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-color_range", color_range, "-s", "256x16", "-i", str(raw)]
    subprocess.run(
        [ffmpeg_executable(), "-v", "error", *source, "-c:v", "ffv1", "-color_range", color_range, str(path)],
        check=True,
    )
    with decode_video(path, DecodingOptions(256)) as frames:
        assert frames.full_range == (color_range == "pc")
        (y, u, v), _ = [tuple(plane.astype(int) for plane in planes) for planes in frames]
    chroma = levels[::2].astype(int)
    wanted_y, wanted_u = levels.astype(int), chroma
    if color_range == "tv":
        wanted_y = np.clip(np.rint((wanted_y - 16) * 255 / 219), 0, 255)
        wanted_u = np.clip(np.rint((wanted_u - 128) * 255 / 224 + 128), 0, 255)
    assert (y == wanted_y).all() and (u == wanted_u).all() and (v == 128).all()


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ("97x65", 65, (65, 97)),
        ("97x65", 256, (65, 97)),
        ("97x65", 33, (33, 49)),
        ("65x97", 33, (49, 33)),
        ("64x64", 31, (31, 31)),
    ],
)
def test_odd_sizes(tmp_path: Path, size: str, side: int, expected: tuple[int, int]) -> None:
    path = _make(tmp_path / "a.avi", "-c:v", "ffv1", "-pix_fmt", "yuv444p", size=size, seconds=0.2)
    video = extract_video({"id": "v", "path": str(path)}, _specification(short_side=side))
    assert (video.height, video.width) == expected
    assert _decode(video.frames).shape == (5, *expected, 3)


def test_resampling_and_native_rate(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.mp4", "-c:v", "mpeg4", rate="30", seconds=2)
    native = extract_video({"id": "v", "path": str(path)}, _specification())
    assert (len(native.frames), native.frames_per_second) == (60, 30.0)
    resampled = extract_video({"id": "v", "path": str(path)}, _specification(frames_per_second=12.5))
    assert (len(resampled.frames), resampled.frames_per_second) == (25, 12.5)
    first, last = _decode(native.frames)[[0, 58]].astype(int), _decode(resampled.frames)[[0, 24]].astype(int)
    assert np.abs(first - last).mean() < 3


def test_an_interval_of_a_longer_file(tmp_path: Path) -> None:
    path = _make(tmp_path / "a.mp4", "-c:v", "mpeg4", "-g", "50", seconds=4)
    whole = extract_video({"id": "v", "path": str(path)}, _specification())
    part = extract_video({"id": "v", "path": str(path), "start": 1.0, "end": 3.0}, _specification())
    assert part.frames == whole.frames[25:75]


def test_a_variable_rate_keeps_every_frame_once(tmp_path: Path) -> None:
    path = _make(
        tmp_path / "a.mkv", "-vf", "select='not(mod(n,3))+lt(n,10)'", "-fps_mode", "vfr", "-c:v", "mpeg4", seconds=2
    )
    with av.open(str(path)) as container:
        expected = sum(1 for _ in container.decode(video=0))
    assert len(extract_video({"id": "v", "path": str(path)}, _specification()).frames) == expected < 50


@pytest.mark.media
def test_bad_videos_are_rejected_with_a_reason_and_the_others_stay(media: Path, tmp_path: Path) -> None:
    train = media / "kinetics_sample/videos/train"
    files = [
        train / "-AirDrum_02_000000_000010.mp4",
        train / "CoRrUpTeD04_000003_000013.mp4",
        train / "hTmLpAgE_06_000020_000030.mp4",
        train / "aUdIoOnLy08_000000_000010.mp4",
        tmp_path / "gone.mp4",
    ]
    shard_list, output = _list(tmp_path / "000.json", files), tmp_path / "out" / "000.h5"
    extract_frames(_specification(), shard_list, output, 2)
    shard = Shard(output)
    assert [video.id for video in shard.videos] == ["00"]
    assert {id: reason.split(":")[0] for id, reason in shard.rejected.items()} == {
        "01": "damaged packet",
        "02": "undecodable",
        "03": "undecodable",
        "04": "missing",
    }
    assert shard.record["versions"]["ffmpeg"] == ffmpeg_version()
    kept = tmp_path / "kept.h5"
    extract_frames(_specification("keep"), shard_list, kept, 2)
    assert [(video.id, video.num_frames) for video in Shard(kept).videos] == [("00", 38), ("01", 49)]


def test_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    files = [_make(tmp_path / f"{i}.mp4", "-c:v", "libx264", seconds=0.2 + 0.4 * (i % 3)) for i in range(5)]
    shard_list = _list(tmp_path / "000.json", files)
    contents = set()
    for workers in (1, 3, 16):
        output = tmp_path / f"{workers}" / "000.h5"
        extract_frames(_specification(), shard_list, output, workers)
        contents.add(output.read_bytes())
        figures = json.loads(output.with_name("000.h5.run.json").read_text())["figures"]
        assert (figures["videos"], figures["workers"]) == (5, workers)
    assert len(contents) == 1
    moved = tmp_path / "moved"
    moved.mkdir()
    again = _list(moved / "000.json", [file.rename(moved / file.name) for file in files])
    extract_frames(_specification(), again, tmp_path / "moved" / "000.h5", 2)
    assert (tmp_path / "moved" / "000.h5").read_bytes() in contents


def test_an_empty_shard_and_a_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "000.h5"
    extract_frames(_specification(), _list(tmp_path / "000.json", []), output, 2)
    assert Shard(output).videos == []

    def fail(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(extraction, "ShardPart", fail)
    extract_frames(_specification(), tmp_path / "000.json", output, 2)
    with pytest.raises(AssertionError, match="made again"):
        extract_frames(_specification(short_side=100), tmp_path / "000.json", output, 2)
    with pytest.raises(UserError, match=r"absent\.json is missing"):
        extract_frames(_specification(), tmp_path / "absent.json", output, 2)


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    files = [_make(tmp_path / f"{i}.mp4", "-c:v", "libx264", size="640x360", seconds=3) for i in range(6)]
    shard_list = _list(tmp_path / "000.json", files)
    whole, output = tmp_path / "whole.h5", tmp_path / "killed" / "000.h5"
    extract_frames(_specification(), shard_list, whole, 1)
    command = [sys.executable, "-m", "pipeline_lib", "extract-frames", "--specification"]
    command += [
        _specification().model_dump_json(),
        "--videos",
        str(shard_list),
        "--output",
        str(output),
        "--threads",
        "1",
    ]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    journal = output.parent / ".000.h5.part" / "journal"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not output.exists(), "the kill came too late"
    finished = journal.read_bytes().count(b"\n")
    assert 2 <= finished < len(files)
    assert subprocess.run(command, capture_output=True).returncode == 0
    figures = json.loads(output.with_name("000.h5.run.json").read_text())["figures"]
    assert figures["videos_resumed"] == finished
    assert figures["frames"] == 75 * (len(files) - finished)
    assert output.read_bytes() == whole.read_bytes()


def test_a_decoder_that_stalls_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline_lib.media import decoder

    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nprintf 'YUV4MPEG2 W4 H4 F25:1\\n'\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(decoder, "decoding_command", lambda *_: [str(script)])
    with pytest.raises(decoder.DecodingError, match=r"no frame within 0\.2 s"):
        with decoder.decode_video(tmp_path, decoder.DecodingOptions(64, stall_seconds=0.2)) as raw:
            list(raw)


def _chosen_ffmpeg(folder: Path, script: str) -> tuple[str, str]:
    """The ffmpeg that is used when this script is the one on the PATH, and what is said about it."""
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    code = "from pipeline_lib.media import ffmpeg; print(ffmpeg.ffmpeg_executable(), ffmpeg.ffmpeg_version())"
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()[0], done.stderr


def test_a_good_ffmpeg_on_the_path_is_preferred_and_any_other_is_named_with_its_fault(tmp_path: Path) -> None:
    real = ffmpeg_executable()
    assert _chosen_ffmpeg(tmp_path, f'exec "{real}" "$@"') == (str(tmp_path / "ffmpeg"), "")
    version = 'if [ "$1" = -version ]; then echo "ffmpeg version %s Copyright"; exit; fi; '
    faults = {
        version % "4.4.2-0ubuntu": "version 4.4.2-0ubuntu is older than 5.1",
        version % "5.1.6" + "echo 'Unrecognized option bsf' >&2; exit 1": "small picture: Unrecognized option bsf",
        # It overlooks the matrix that the video names.
        version % "6.1"
        + f'for word; do shift; set -- "$@" "$(echo "$word" | sed s/=bt709:/=bt470bg:/)"; done; exec "{real}" "$@"': (
            "version 6.1 gives wrong colours: Y, U, V (63, 102, 240) instead of (82, 90, 240)"
        ),
        "exit 3": "does not run",
    }
    for script, fault in faults.items():
        chosen, said = _chosen_ffmpeg(tmp_path, script)
        assert chosen != str(tmp_path / "ffmpeg")
        assert f"{tmp_path}/ffmpeg is not used: " in said and fault in said and f"{chosen} is used instead" in said


@pytest.mark.parametrize("side", [16, 32, 63])
def test_small_sizes_keep_the_luma_of_bt709(tmp_path: Path, side: int) -> None:
    """Flat colours of a large picture, against the two matrices: ITU-R BT.709 item 3 and BT.601 item 2.5."""
    red, blue = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114)}.values()

    def matrix(kr: float, kb: float) -> np.ndarray:
        kg = 1 - kr - kb
        u, v = 2 * (1 - kb), 2 * (1 - kr)
        return np.array([[kr, kg, kb], [-kr / u, -kg / u, 0.5], [0.5, -kg / v, -kb / v]])

    change = matrix(*blue) @ np.linalg.inv(matrix(*red))
    for colour in ((63, 102, 240), (173, 42, 26), (100, 128, 128), (235, 128, 128)):
        raw = tmp_path / "a.yuv"
        raw.write_bytes(
            b"".join(bytes([level]) * count for level, count in zip(colour, (76800, 19200, 19200), strict=True))
        )
        path = tmp_path / "a.mkv"
        source = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "320x240", "-i", str(raw)]
        coding = ["-vf", "setparams=colorspace=bt709:range=limited", "-c:v", "ffv1", str(path)]
        subprocess.run([ffmpeg_executable(), "-v", "error", "-y", *source, *coding], check=True)
        wanted = change @ [(colour[0] - 16) / 219, (colour[1] - 128) / 224, (colour[2] - 128) / 224]
        with decode_video(path, DecodingOptions(side)) as frames:
            ((y, u, v),) = [tuple(plane.astype(int) for plane in planes) for planes in frames]
        assert np.abs(y - wanted[0] * 255).max() <= 1
        assert np.abs(u - (128 + 255 * wanted[1])).max() <= 1.5 and np.abs(v - (128 + 255 * wanted[2])).max() <= 1.5


def test_a_shard_with_too_many_unusable_videos_fails_with_the_counts(tmp_path: Path) -> None:
    good, bad, gone = _make(tmp_path / "a.mp4"), tmp_path / "b.mp4", tmp_path / "c.mp4"
    bad.write_bytes(b"no video")
    videos = _list(tmp_path / "v.json", [good, bad, gone])
    with pytest.raises(
        UserError, match=r"2 of 3 videos cannot be used \(67%; datasets.d.maximum_loss_share allows 50%"
    ):
        extract_frames(_specification(), videos, tmp_path / "s.h5", 2, maximum_loss_share=0.5)
    assert not (tmp_path / "s.h5").exists()
    _make(gone)
    extract_frames(_specification(), videos, tmp_path / "s.h5", 2, maximum_loss_share=0.5)
    shard = Shard(tmp_path / "s.h5")
    assert [video.id for video in shard.videos] == ["00", "02"] and list(shard.rejected) == ["01"]
    sidecar = json.loads((tmp_path / "s.h5.run.json").read_text())
    assert sidecar["figures"]["videos_resumed"] == 1

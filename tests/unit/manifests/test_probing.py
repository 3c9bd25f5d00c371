"""Single files: what is found, and processes that hang or crash."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_decoder import hostile_probe

from pipeline_lib.manifests.cache import ProbeCache
from pipeline_lib.manifests.pool import probe_each
from pipeline_lib.manifests.probing import Probe, probe_file
from pipeline_lib.media.ffmpeg import ffmpeg_executable


def _make(path: Path, *arguments: str, seconds: float = 2.0, size: str = "64x48") -> Path:
    source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={seconds}"]
    subprocess.run([ffmpeg_executable(), "-v", "error", "-y", *source, *arguments, str(path)], check=True)
    return path


@pytest.mark.media
def test_rotation_is_applied_to_the_size(media: Path) -> None:
    probe = probe_file(media / "broken/video_90.mov", decode=True)
    assert (probe.height, probe.width, probe.num_frames, probe.problem) == (568, 320, 3, "")


@pytest.mark.media
def test_a_container_without_frame_count(media: Path) -> None:
    probe = probe_file(media / "clips/flipping_a_pancake.mkv", decode=True)
    assert (probe.num_frames, probe.frames_per_second, probe.problem) == (310, 30.0, "")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "avi"])
def test_whole_files_and_files_cut_short(tmp_path: Path, ending: str) -> None:
    codec = ["-c:v", "libvpx", "-b:v", "400k"] if ending == "webm" else ["-c:v", "mpeg4", "-q:v", "3"]
    # An MP4 with its index in front still opens when its end is missing.
    path = _make(tmp_path / f"a.{ending}", *codec, "-g", "5", "-movflags", "+faststart", seconds=4)
    whole = probe_file(path, decode=True)
    assert (whole.num_frames, whole.frames_per_second, whole.height, whole.width) == (100, 25.0, 48, 64)
    assert whole.problem == ""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    cut = probe_file(path, decode=True)
    assert cut.problem.startswith("truncated: ") and cut.usable
    assert cut.num_frames is not None and 30 < cut.num_frames < 80
    assert cut.content_digest != whole.content_digest


def test_an_intended_cut_by_an_edit_list_is_no_truncation(tmp_path: Path) -> None:
    source = _make(tmp_path / "a.mp4", "-c:v", "mpeg4", "-g", "50", seconds=4)
    cut = tmp_path / "b.mp4"
    # Copied from between two key frames: the file holds frames that its edit list leaves out.
    command = [ffmpeg_executable(), "-v", "error", "-ss", "1.0", "-i", str(source), "-t", "2", "-c", "copy", str(cut)]
    subprocess.run(command, check=True)
    probe = probe_file(cut, decode=True)
    assert probe.problem == "" and probe.num_frames is not None and 49 <= probe.num_frames <= 76


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty: "),
        (b"<!DOCTYPE html><title>Not found</title>", "not a video: the file is an HTML"),
        (b"video unavailable\n" * 20, "not a video: the file is text"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "not a video: "),
        (b"\0\0\0\x18ftypisom" + bytes(500), "truncated: the file ends before its index"),
        (b"\x1aE\xdf\xa3" + bytes(300), "undecodable: "),
        (bytes(range(256)) * 40, "not a video: "),
    ],
)
def test_files_that_are_no_videos(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "-a:b.mp4"
    path.write_bytes(content)
    for decode in (True, False):
        probe = probe_file(path, decode)
        assert probe.problem.startswith(problem) and not probe.usable
        assert str(tmp_path) not in probe.problem


@pytest.mark.parametrize("num_workers", [1, 4])
def test_hanging_and_crashing_decoders_cost_one_file_each(num_workers: int) -> None:
    paths = [
        "a",
        "hang1",
        "bb",
        "crash1",
        "exit1",
        "ccc",
        "hang2",
        "crash2",
        "dddd",
        *(f"crash{i}" for i in range(3, 30)),
    ]
    probes = dict(probe_each(paths, num_workers, True, 2.0, hostile_probe))
    assert set(probes) == set(paths)
    assert [probes[path].num_frames for path in ("a", "bb", "ccc", "dddd")] == [1, 2, 3, 4]
    problems = {"h": "probing timed out: no answer within 2 s", "e": "undecodable: the decoder crashed (exit status 3)"}
    problems["c"] = "undecodable: the decoder crashed (signal 6)"
    for path in set(paths) - {"a", "bb", "ccc", "dddd"}:
        assert probes[path].problem == problems[path[0]]
    assert multiprocessing.active_children() == []


def test_probing_processes_find_what_the_function_finds(tmp_path: Path) -> None:
    good, bad = _make(tmp_path / "good.mp4", "-c:v", "mpeg4"), tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    names = [str(good), str(bad), str(tmp_path / "absent.mp4")]
    probes = dict(probe_each(names, 2, True, 30.0))
    assert probes[str(good)] == probe_file(good, True) and probes[str(bad)] == probe_file(bad, True)
    assert probes[names[2]].problem.startswith("missing")


def test_cache_keeps_what_was_stored_before_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "probes.sqlite"
    probe = Probe(5, 25.0, 48, 64, "abc", "", True)
    script = (
        "import json, os, sys; from pathlib import Path; from pipeline_lib.manifests import cache, probing\n"
        "cache._COMMIT_SECONDS = -1\n"
        "table = cache.ProbeCache(Path(sys.argv[1]), 'code')\n"
        "table.store('a.mp4', 10, 20, probing.Probe(**json.loads(sys.argv[2]))); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path), json.dumps(probe.to_json())])
    with ProbeCache(path, "code") as cache:
        assert cache.load() == {"a.mp4": (10, 20, probe)}
    with ProbeCache(path, "edited code") as cache:
        assert cache.load() == {}
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with ProbeCache(path, "code") as cache:
        assert cache.load() == {}

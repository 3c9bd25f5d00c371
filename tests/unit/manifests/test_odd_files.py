"""Odd names, links, pipes and machines: a rejected row at most, and no verdict that outlives its cause."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hostile_decoder import hostile_probe

from pipeline_lib.configuration.data import Dataset, FrameFormat
from pipeline_lib.configuration.specification import FramesSpecification, ManifestSpecification
from pipeline_lib.manifests import build
from pipeline_lib.manifests.build import build_manifest
from pipeline_lib.manifests.check import check_table
from pipeline_lib.manifests.pool import probe_each
from pipeline_lib.manifests.probing import Probe
from pipeline_lib.manifests.schema import ListedVideo, reject_unusable
from pipeline_lib.media.ffmpeg import ffmpeg_executable
from pipeline_lib.media.frames_stage import extract_frames
from pipeline_lib.media.shards import Shard


def _clip(path: Path, *filters: str, seconds: float = 1.0, codec: str = "libx264") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ["-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=25:duration={seconds}", *filters]
    command = [ffmpeg_executable(), "-nostdin", "-v", "error", "-y", *source, "-c:v", codec, "-pix_fmt", "yuv420p"]
    subprocess.run([*command, f"file:{path}"], check=True)
    return path


def _dataset(folder: Path, **changes: Any) -> Dataset:
    settings = {"format": "folder", "videos": [str(folder)], "num_shards": 1, "maximum_reject_share": 1.0}
    return Dataset(**(settings | changes))


def _build(dataset: Dataset, output: Path) -> dict[str, dict[str, Any]]:
    build_manifest(ManifestSpecification(name="few", dataset=dataset), output, 2)
    rows = pq.read_table(output / "manifest.parquet").to_pylist()
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows), "an id occurs twice"
    return found


ODD_NAMES = [
    "{a}",
    "{a",
    "}",
    "#",
    "x#2",
    "x",
    "%03d",
    "a b",
    "-x",
    "a:b",
    "'",
    '"',
    "a\\nb",
    "a\nb",
    "*?[",
    "$HOME",
    "é",
]


def test_odd_names_links_and_pipes_cost_a_row_at_most(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    clip = _clip(tmp_path / "clip.mp4")
    for index, name in enumerate(ODD_NAMES):
        path = videos / "run" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Other bytes for each.
        path.write_bytes(clip.read_bytes() + bytes(8 * index))
    shutil.copyfile(clip, videos / "run/x.avi")
    (videos / "run/itself.mp4").symlink_to("itself.mp4")
    (videos / "run/one.mp4").symlink_to("other.mp4")
    (videos / "run/other.mp4").symlink_to("one.mp4")
    (videos / "loop").symlink_to("loop")
    os.mkfifo(videos / "run/pipe.mp4")
    (videos / "run/device.mp4").symlink_to("/dev/zero")
    latin1 = os.fsdecode(os.fsencode(str(videos / "run")) + b"/caf\xe9.mp4")
    shutil.copyfile(clip, latin1)
    latin1_class = os.fsdecode(os.fsencode(str(videos)) + b"/na\xefve/v.mp4")
    Path(latin1_class).parent.mkdir()
    shutil.copyfile(clip, latin1_class)
    found = _build(_dataset(videos), tmp_path / "manifest")
    reasons = {id: row["reason"] for id, row in found.items()}
    for name in ODD_NAMES:
        assert reasons.pop(f"run/{name}") == "", name
    duplicate = reasons.pop("run/x#3")
    assert duplicate.startswith("duplicate video: ")
    name = "unusable name: it is not UTF-8; rename it"
    assert reasons == {
        "run/itself": "unreadable: Too many levels of symbolic links",
        "run/one": "unreadable: Too many levels of symbolic links",
        "run/other": "unreadable: Too many levels of symbolic links",
        "run/pipe": "not a video: it is a pipe, not a file",
        "run/device": "not a video: it is a device, not a file",
        "run/caf\\xe9": name,
        "na\\xefve/v": name,
    }
    assert found["na\\xefve/v"]["labels"] == ["na\\xefve"]
    assert f"na\\xefve/v: {name}" in check_table(tmp_path / "manifest")
    listing = json.loads((tmp_path / "manifest/shards/000.json").read_text())["videos"]
    assert len(listing) == len(ODD_NAMES)
    frames = FramesSpecification(
        dataset="few", frame_format="f", frames=FrameFormat(short_side=48), on_decode_error="reject"
    )
    extract_frames(frames, tmp_path / "manifest/shards/000.json", tmp_path / "000.h5", 2)
    shard = Shard(tmp_path / "000.h5")
    assert [video.num_frames for video in shard.videos] == [25] * len(ODD_NAMES) and not shard.rejected


def test_ids_stay_unique_where_a_listed_id_looks_like_that_of_a_duplicate() -> None:
    ids = ["a", "a#2", "a", "a#2", "a", "a#3"]
    videos = [ListedVideo(id, ("run",), ("train",), (id,)) for id in ids]
    found = [video.id for video in reject_unusable(videos, 1, None)]
    assert len(set(found)) == len(ids) and found[:2] == ["a", "a#2"]
    assert [video.reason == "" for video in reject_unusable(videos, 1, None)] == [True, True, False, False, False, True]


def test_braces_in_a_lists_name_are_one_message(tmp_path: Path, repository: Path) -> None:
    clip = _clip(tmp_path / "{v}/a.mp4")
    (tmp_path / "{v}/list.csv").write_text(f"path,label\n{clip.name},run\n")
    for name, output in (("{v}/list.csv", "out"), ("list.csv", "{out}")):
        shutil.copyfile(tmp_path / "{v}/list.csv", tmp_path / "list.csv")
        (tmp_path / "my.yaml").write_text(
            f"output: '{tmp_path}/{output}'\ndatasets:\n  few: {{format: table, videos: ['{tmp_path}/{{v}}'], "
            f"annotations: {{train: '{tmp_path}/{name}'}}, num_shards: 1, validation_share: 0.0}}\n"
        )
        command = [sys.executable, "-m", "snakemake", "-n", "-s", str(repository / "Snakefile"), "--cores", "1"]
        target = f"{tmp_path}/{output}/manifests/few/summary.json"
        command += ["--configfile", str(tmp_path / "my.yaml"), "--", target]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode != 0 and "Snakemake takes the braces in" in said and "Traceback" not in said, said
    # A folder of videos may have any name.
    (tmp_path / "my.yaml").write_text((tmp_path / "my.yaml").read_text().replace("{out}", "out"))
    command[-1] = f"{tmp_path}/out/manifests/few/summary.json"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_machine_caused_is_probed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights, a server that is away, a worker that was killed, memory: the next run finds the video good."""
    for name in ("a", "b"):
        _clip(tmp_path / f"videos/run/{name}.mp4", seconds=1.0 if name == "a" else 1.2)
    output = tmp_path / "manifest"
    real = build.probe_each
    problems = [
        "unreadable: Permission denied",
        "unreadable: Stale file handle",
        "undecodable: MemoryError",
        "undecodable: the decoder crashed (signal 9)",
    ]
    for problem in problems:

        def away(paths: Any, *_: Any, problem: str = problem) -> Any:
            return iter([(path, Probe(problem=problem, passing=True)) for path in paths])

        monkeypatch.setattr(build, "probe_each", away)
        (output / "summary.json").unlink(missing_ok=True)
        with pytest.raises(Exception, match="2 of 2 listed videos are unusable"):
            _build(_dataset(tmp_path / "videos"), output)
    monkeypatch.setattr(build, "probe_each", real)
    rows = _build(_dataset(tmp_path / "videos"), output)
    assert Counter(row["status"] for row in rows.values()) == {"accepted": 2}


def test_a_worker_that_ends_and_a_file_without_rights_are_passing(tmp_path: Path) -> None:
    names = ["crash1", "exit1"]
    for _, probe in probe_each(names, 1, True, 5.0, hostile_probe):
        assert probe.passing and probe.problem.startswith("undecodable: the decoder crashed")
    (_, probe), *_ = probe_each([str(tmp_path / "gone.mp4")], 1, True, 5.0)
    assert probe.passing and probe.problem.startswith("missing")
    for text in (b"", b"text" * 9, bytes(range(256)) * 9):
        (tmp_path / "a.mp4").write_bytes(text)
        (_, probe), *_ = probe_each([str(tmp_path / "a.mp4")], 1, True, 5.0)
        assert probe.problem and not probe.passing
    if os.geteuid() != 0:
        (tmp_path / "a.mp4").chmod(stat.S_IWUSR)
        (_, probe), *_ = probe_each([str(tmp_path / "a.mp4")], 1, True, 5.0)
        assert probe.passing and probe.problem == "unreadable: Permission denied"


def test_a_finite_limit_of_the_address_space_changes_nothing(tmp_path: Path) -> None:
    videos = [_clip(tmp_path / f"{name}.mp4") for name in ("a", "b")]
    script = (
        "import sys; from pipeline_lib.manifests.pool import probe_each\n"
        "print(sorted((p.num_frames, p.problem) for _, p in probe_each(sys.argv[1:], 2, True, 30.0)))\n"
    )
    for gigabytes in (20, 4):
        command = f'ulimit -v {gigabytes << 20}; exec "$@"'
        words = ["bash", "-c", command, "x", sys.executable, "-c", script, *map(str, videos)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "[(25, ''), (25, '')]", done.stderr


def test_damage_of_every_kind_gives_one_digest_wherever_the_files_lie(tmp_path: Path) -> None:
    one = tmp_path / "one/run"
    good = _clip(one / "good.mp4").read_bytes()
    table = good.index(b"stsz")
    # The table of sizes claims 2^31 samples; its length, the box's and the picture's are cut, flipped and zeroed.
    claims = bytearray(good)
    claims[table + 12 : table + 16] = (2**31).to_bytes(4, "big")
    (one / "claims.mp4").write_bytes(claims)
    for number in range(40):
        damaged = bytearray(good)
        place = (number * 7919) % (len(good) - 64)
        damaged[place : place + 8] = bytes((byte * 31 + number) % 256 for byte in damaged[place : place + 8])
        (one / f"flip{number:02d}.mp4").write_bytes(damaged)
        (one / f"cut{number:02d}.mp4").write_bytes(good[: len(good) * number // 40])
    (one / "page.mp4").write_bytes(b"<!DOCTYPE html><title>gone</title>")
    (one / "playlist.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (one / "link.mp4").symlink_to("link.mp4")
    os.mkfifo(one / "pipe.mp4")
    two = tmp_path / "somewhere else/far/two"
    shutil.copytree(
        tmp_path / "one", two, symlinks=True, copy_function=shutil.copy2, ignore=shutil.ignore_patterns("pipe*")
    )
    os.mkfifo(two / "run/pipe.mp4")
    manifests = [tmp_path / "m1", tmp_path / "m2"]
    rows = [_build(_dataset(tree), output) for tree, output in zip((tmp_path / "one", two), manifests, strict=True)]
    for row in rows[0].values():
        assert str(tmp_path) not in row["reason"], row["reason"]
    assert {id: row["reason"] for id, row in rows[0].items()} == {id: row["reason"] for id, row in rows[1].items()}
    summaries = [(output / "summary.json").read_text() for output in manifests]
    assert summaries[0] == summaries[1] and str(tmp_path) not in summaries[0]
    frames = FramesSpecification(
        dataset="few", frame_format="f", frames=FrameFormat(short_side=48), on_decode_error="reject"
    )
    for output in manifests:
        extract_frames(frames, output / "shards/000.json", output / "000.h5", 2)
    shards = [(output / "000.h5").read_bytes() for output in manifests]
    assert shards[0] == shards[1] and str(tmp_path).encode() not in shards[0]

"""Every reason for which a video is not used, each on a real file."""

import json
import multiprocessing
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.specification import ManifestSpecification
from pipeline_lib.manifests.build import build_manifest
from pipeline_lib.manifests.check import check_table
from pipeline_lib.media.ffmpeg import ffmpeg_executable

pytestmark = pytest.mark.media

REASONS = {
    "good": "",
    "videos/good": "duplicate video: its file is already that of good",
    "good#2": "duplicate video: listed before in train as run",
    "absent": "missing: no file called absent.mp4",
    "empty": "empty: the file has 0 bytes",
    "page": "not a video: the file is an HTML",
    "picture": "not a video: ",
    "sound": "no video stream: the file holds audio",
    "zeros": "undecodable: ",
    "cut": "truncated: ",
    "damaged": "damaged packet: ",
    "one_frame": "too short: 1 frame, 8 are needed",
    "part_3.00_4.00": "too short: the file ends at ",
    "small": "too small: 40×20, the short side must be 32",
    "endless": "probing timed out: no answer within 5 s",
    "other": "unknown label: fly",
    "none": "unknown label: none is given",
}
LABELS = {"other": "fly", "none": ""}


def _ffmpeg(*arguments: str) -> None:
    subprocess.run([ffmpeg_executable(), "-v", "error", "-y", *arguments], check=True)


def _make_files(folder: Path, media: Path) -> None:
    sample = media / "kinetics_sample/videos/train"
    copies = {
        "good": "aBsEiLiNg01_000000_000010",
        "part": "aBsEiLiNg01_000010_000020",
        "other": "aBsEiLiNg01_000020_000030",
        "none": "-AirDrum_02_000000_000010",
        "empty": "ZeRoBytes05_000000_000010",
        "page": "hTmLpAgE_06_000020_000030",
        "sound": "aUdIoOnLy08_000000_000010",
        "cut": "tRuNcAtEd07_000010_000020",
        "damaged": "CoRrUpTeD04_000003_000013",
        "one_frame": "oNeFrAmE_09_000000_000010",
    }
    for name, source in copies.items():
        shutil.copyfile(sample / f"{source}.mp4", folder / f"{name}.mp4")
    # An intact index in front of a picture track that is all zeros.
    good = folder / "good.mp4"
    _ffmpeg("-i", str(good), "-an", "-c", "copy", "-movflags", "+faststart", str(folder / "zeros.mp4"))
    content = bytearray((folder / "zeros.mp4").read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin:] = bytes(len(content) - begin)
    (folder / "zeros.mp4").write_bytes(content)
    _ffmpeg("-i", str(good), "-vf", "scale=40:20", "-an", str(folder / "small.mp4"))
    _ffmpeg("-i", str(good), "-frames:v", "1", "-f", "image2", "-c:v", "mjpeg", str(folder / "picture.mp4"))
    # A few hundred kilobytes that take a decoder minutes.
    seed = folder / "seed.mp4"
    _ffmpeg("-f", "lavfi", "-i", "color=black:size=4096x4096:rate=25", "-frames:v", "2", "-c:v", "mpeg4", str(seed))
    _ffmpeg("-stream_loop", "10000", "-i", str(seed), "-c", "copy", str(folder / "endless.mp4"))
    seed.unlink()


def test_every_reason_is_found_on_a_real_file(media: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    _make_files(videos, media)
    rows = ["path,label,start,end"]
    for id in REASONS:
        name = id.removesuffix("#2").removesuffix("_3.00_4.00")
        start, end = ("3", "4") if name == "part" else ("", "")
        rows.append(f"{name}.mp4,{LABELS.get(id, 'run')},{start},{end}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "classes.txt").write_text("run\n")
    dataset = Dataset(
        format="table",
        annotations={"train": str(tmp_path / "list.csv"), "labels": str(tmp_path / "classes.txt")},
        videos=[str(videos)],
        num_shards=1,
        validation_share=0.0,
        probe_seconds=5.0,
        maximum_reject_share=1.0,
    )
    output = tmp_path / "manifests/mine"
    summary = build_manifest(ManifestSpecification(name="mine", dataset=dataset), output, 2)
    found = {row["id"]: row for row in pq.read_table(output / "manifest.parquet").to_pylist()}
    assert set(found) == set(REASONS)
    for id, reason in REASONS.items():
        row = found[id]
        assert row["reason"].startswith(reason) and bool(row["reason"]) == bool(reason), (id, row["reason"])
        status = "accepted" if not reason else "missing" if reason.startswith("missing") else "rejected"
        assert row["status"] == status, id
    expected = Counter(reason.partition(":")[0] for reason in REASONS.values() if reason)
    assert summary["reasons"] == dict(expected)
    # The decoder that was still busy is gone, and so are the others.
    assert multiprocessing.active_children() == []
    table = check_table(output)
    assert all(code in table for code in expected)
    # What timed out is tried again by the next run, and nothing else.
    dataset = dataset.model_copy(update={"probe_seconds": 1.0})
    build_manifest(ManifestSpecification(name="mine", dataset=dataset), output, 2)
    assert json.loads((output / "summary.json.run.json").read_text())["figures"]["probed"] == 1

"""The manifest of a Kinetics tree: official lists, both layouts, every kind of broken file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.specification import ManifestSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.manifests import build
from pipeline_lib.manifests.build import build_manifest, shard_index
from pipeline_lib.manifests.check import check_table

pytestmark = pytest.mark.media


def _specification(root: Path, **changes: Any) -> ManifestSpecification:
    settings: dict[str, Any] = {
        "format": "kinetics",
        "annotations": {"train": str(root / "train.csv"), "validation": str(root / "val.csv")},
        "videos": [str(root / "videos")],
        "num_shards": 5,
    }
    return ManifestSpecification(name="kinetics400", dataset=Dataset(**(settings | changes)))


@pytest.fixture(scope="module")
def sample(media: Path) -> Path:
    return media / "kinetics_sample"


@pytest.fixture(scope="module")
def built(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests") / "kinetics400"
    build_manifest(_specification(sample), folder, 2)
    return folder


def test_counts_and_reasons(built: Path) -> None:
    rows = {row["id"]: row for row in pq.read_table(built / "manifest.parquet").to_pylist()}
    summary = json.loads((built / "summary.json").read_text())
    assert len(rows) == 20
    assert summary["status"] == {"accepted": 12, "missing": 2, "rejected": 6}
    expected = {
        "CoRrUpTeD04_000003_000013": "damaged packet: ",
        "ZeRoBytes05_000000_000010": "empty: ",
        "hTmLpAgE_06_000020_000030": "not a video: the file is an HTML",
        "tRuNcAtEd07_000010_000020": "truncated: ",
        "aUdIoOnLy08_000000_000010": "no video stream: the file holds audio",
        "oNeFrAmE_09_000000_000010": "too short: 1 frame, ",
        "nOtOnDiSk10_000005_000015": "missing: ",
        "nOtOnDiSk11_000005_000015": "missing: ",
    }
    assert {id for id, row in rows.items() if row["status"] != "accepted"} == set(expected)
    for id, reason in expected.items():
        assert rows[id]["reason"].startswith(reason)
        assert rows[id]["status"] == ("missing" if reason.startswith("missing") else "rejected")
    assert summary["reasons"]["missing"] == 2 and all(summary["reasons"][r.split(":")[0]] for r in expected.values())
    assert summary["classes"] == ["abseiling", "air drumming", "flipping pancake"]
    assert summary["subsets"]["subset_1"]["train"] == {"accepted": 9, "rejected": 6, "missing": 1}
    assert summary["subsets"]["subset_1"]["validation"] == {"accepted": 3, "rejected": 0, "missing": 1}


def test_rows_of_accepted_videos(built: Path) -> None:
    rows = {row["id"]: row for row in pq.read_table(built / "manifest.parquet").to_pylist()}
    drum = rows["-AirDrum_02_000030_000040"]
    assert drum["path"].endswith("val/air drumming/-AirDrum_02_000030_000040.mp4")
    assert (drum["labels"], drum["subset_1"], drum["start"], drum["end"]) == (
        ["air drumming"],
        "validation",
        30.0,
        40.0,
    )
    assert (drum["num_frames"], drum["frames_per_second"], drum["height"], drum["width"]) == (37, 30.0, 360, 204)
    assert (
        len({rows[f"aBsEiLiNg01_0000{a}_0000{b}"]["path"] for a, b in (("00", "10"), ("10", "20"), ("20", "30"))}) == 3
    )


def test_shard_lists_hold_the_accepted_videos_and_no_labels(built: Path) -> None:
    rows = {row["id"]: row for row in pq.read_table(built / "manifest.parquet").to_pylist()}
    seen = []
    for index in range(5):
        text = (built / "shards" / f"{index:03d}.json").read_text()
        content = json.loads(text)
        ids = [video["id"] for video in content["videos"]]
        assert ids == sorted(ids)
        assert all(shard_index(id, 5) == index and rows[id]["shard"] == f"{index:03d}" for id in ids)
        assert all("label" not in key and "subset" not in key for video in content["videos"] for key in video)
        seen += ids
    assert sorted(seen) == sorted(id for id, row in rows.items() if row["status"] == "accepted")


def test_same_content_gives_same_bytes_and_probes_nothing_again(
    sample: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in built.rglob("*") if path.suffix in (".json", ".parquet")}
    before = {path: content for path, content in before.items() if not path.name.endswith(".run.json")}

    def probe_nothing(*_: object) -> None:
        raise AssertionError("probed again")

    monkeypatch.setattr(build, "probe_each", probe_nothing)
    build_manifest(_specification(sample), built, 2)
    assert {path: path.read_bytes() for path in before} == before


def test_moved_tree_has_the_same_digest_and_a_changed_file_is_probed_again(
    sample: Path, built: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    for source in sample.rglob("*"):
        if source.is_file():
            target = moved / source.relative_to(sample)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (moved / "videos/train/._aBsEiLiNg01_000000_000010.mp4").write_bytes(b"\0\5\26\7 left by macOS")
    (moved / "videos/val/air drumming").rename(moved / "videos/val/air_drumming")
    folder = tmp_path / "manifests" / "kinetics400"
    summary = build_manifest(_specification(moved), folder, 2)
    assert summary["digest"] == json.loads((built / "summary.json").read_text())["digest"]
    (moved / "videos/train/-AirDrum_02_000000_000010.mp4").write_bytes(b"")
    again = build_manifest(_specification(moved), folder, 2)
    figures = json.loads((folder / "summary.json.run.json").read_text())["figures"]
    assert (figures["probed"], figures["cached"]) == (1, 17)
    assert again["status"] == {"accepted": 11, "missing": 2, "rejected": 7} and again["digest"] != summary["digest"]


def test_keep_takes_a_damaged_video_with_what_decodes(sample: Path, tmp_path: Path) -> None:
    build_manifest(_specification(sample, on_decode_error="keep"), tmp_path / "m", 2)
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "m" / "manifest.parquet").to_pylist()}
    assert rows["CoRrUpTeD04_000003_000013"]["status"] == "accepted"
    assert rows["CoRrUpTeD04_000003_000013"]["num_frames"] == 49
    assert rows["tRuNcAtEd07_000010_000020"]["status"] == "rejected"


def test_headers_only_finds_what_needs_no_decoding(sample: Path, tmp_path: Path) -> None:
    summary = build_manifest(_specification(sample, probe="headers"), tmp_path / "m", 2)
    assert summary["reasons"] == {
        "empty": 1,
        "missing": 2,
        "no video stream": 1,
        "not a video": 1,
        "truncated": 1,
    }


def test_too_many_unusable_videos_fail_with_the_counts(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"8 of 20 .* unusable \(40%; .*maximum_reject_share allows 20%") as caught:
        build_manifest(_specification(sample, maximum_reject_share=0.2), tmp_path / "m", 2)
    assert "2 × missing" in str(caught.value) and "1 × damaged packet" in str(caught.value)
    assert not (tmp_path / "m" / "manifest.parquet").exists()


def test_command_line_and_table(sample: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pipeline_lib",
        "manifest",
        "build",
        "--output",
        str(tmp_path / "m"),
        "--threads",
        "2",
    ]
    done = subprocess.run(
        [*command, "--specification", _specification(sample).model_dump_json()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "12 accepted, 2 missing, 6 rejected" in done.stdout
    table = check_table(tmp_path / "m")
    assert "subset_1 train" in table and "nOtOnDiSk10_000005_000015: missing" in table
    assert check_table(tmp_path / "m", reason="truncated").startswith("tRuNcAtEd07_000010_000020\t")
    with pytest.raises(UserError, match="there are: damaged packet, empty"):
        check_table(tmp_path / "m", reason="boring")


def test_unconfigured_data_set_is_one_message_without_traceback(tmp_path: Path) -> None:
    dataset = Dataset(
        format="kinetics", annotations={"train": None, "validation": "/nowhere/val.csv"}, videos=["/nowhere"]
    )
    specification = ManifestSpecification(name="kinetics400", dataset=dataset).model_dump_json()
    command = [sys.executable, "-m", "pipeline_lib", "manifest", "build", "--specification", specification]
    done = subprocess.run([*command, "--output", str(tmp_path / "m")], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for part in (
        "datasets.kinetics400.annotations.train is not set",
        "datasets.kinetics400.annotations.validation is '/nowhere/val.csv': looked for /nowhere/val.csv",
        "datasets.kinetics400.videos has the folder '/nowhere'",
        "docs/manifests.md",
    ):
        assert part in done.stderr

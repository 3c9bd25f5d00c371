"""Official lists against trees as copies of the data sets have them; the files are empty, since none is opened."""

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.specification import ManifestSpecification
from pipeline_lib.manifests.build import build_manifest

pytestmark = pytest.mark.media


def _found(tmp_path: Path, files: dict[str, str], **settings: Any) -> dict[str, str]:
    """Paths of the videos that were found, by id, after the files have been made; all others must be missing."""
    for name in files.values():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        # What macOS leaves beside each file.
        (path.parent / f"._{path.name}").touch()
    dataset = Dataset(probe="none", num_shards=1, maximum_reject_share=1.0, **settings)
    build_manifest(ManifestSpecification(name="mine", dataset=dataset), tmp_path / "manifest", 1)
    rows = pq.read_table(tmp_path / "manifest/manifest.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"accepted", "missing"}
    return {row["id"]: row["path"].removeprefix(f"{tmp_path}/") for row in rows if row["status"] == "accepted"}


def test_kinetics_in_every_layout(media: Path, tmp_path: Path) -> None:
    with open(media / "annotations/kinetics-400_val.csv", newline="") as file:
        first = {row["label"]: row for row in reversed(list(csv.DictReader(file)))}
    chosen = {
        label: "{youtube_id}_{time_start:0>6}_{time_end:0>6}".format(**first[label])
        for label in ("abseiling", "air drumming", "tai chi")
    }
    damaged = first["zumba"]["youtube_id"]
    files = {
        chosen["abseiling"]: f"videos/{chosen['abseiling']}.mp4",
        chosen["air drumming"]: f"videos/val/air drumming/{chosen['air drumming']}.mkv",
        chosen["tai chi"]: f"videos/val/tai_chi/{chosen['tai chi']}.webm",
        "replaced": f"replacement/{damaged}.mp4",
        "unlisted": "videos/zzzzzzzzzzz_000000_000010.mp4",
        "not finished": "videos/abseiling/aaaaaaaaaaa_000000_000010.mp4.part",
    }
    nothing = tmp_path / "train.csv"
    nothing.write_text("label,youtube_id,time_start,time_end,split\n")
    found = _found(
        tmp_path,
        files,
        format="kinetics",
        annotations={"train": str(nothing), "validation": str(media / "annotations/kinetics-400_val.csv")},
        videos=[str(tmp_path / "videos")],
        replacements=[str(tmp_path / "replacement")],
    )
    replaced = {id: path for id, path in found.items() if id.startswith(damaged)}
    assert list(replaced.values()) == [files["replaced"]]
    assert {id: path for id, path in found.items() if id not in replaced} == {id: files[id] for id in chosen.values()}


def test_ucf101_in_class_folders_and_flat(media: Path, tmp_path: Path) -> None:
    files = {
        # The class is spelled otherwise in the names of its files.
        "v_HandStandPushups_g01_c01": "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "v_ApplyEyeMakeup_g01_c01": "UCF-101/v_ApplyEyeMakeup_g01_c01.avi",
        "v_YoYo_g25_c05": "UCF-101/YoYo/v_YoYo_g25_c05.mp4",
    }
    settings = {"annotations": {"splits": str(media / "annotations/ucf101")}, "videos": [str(tmp_path / "UCF-101")]}
    assert _found(tmp_path, files, format="ucf101", num_splits=3, **settings) == files


def test_hmdb51_with_its_names(media: Path, tmp_path: Path) -> None:
    lists = sorted((media / "annotations/hmdb51").glob("*_test_split1.txt"))
    names = [name.rsplit("_test_split1", 1)[0] for name in (path.name for path in lists)]
    files = {}
    for label, path in zip(names[::17], lists[::17], strict=True):
        file = path.read_text().splitlines()[0].rsplit(maxsplit=1)[0]
        files[f"{label}/{file.removesuffix('.avi')}"] = f"hmdb/{label}/{file}"
    settings = {"annotations": {"splits": str(media / "annotations/hmdb51")}, "videos": [str(tmp_path / "hmdb")]}
    assert _found(tmp_path, files, format="hmdb51", num_splits=3, **settings) == files

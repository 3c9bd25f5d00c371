"""Something-Something, Sports-1M, AVA, JHMDB and UCF101-24 on files made in their formats."""

import json
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline_lib.configuration.data import Dataset, FrameFormat
from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.configuration.specification import FramesSpecification, ManifestSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.ava import read_action_list
from pipeline_lib.manifests.build import build_manifest
from pipeline_lib.manifests.importers import read_listing
from pipeline_lib.manifests.schema import Box, reject_unusable
from pipeline_lib.media.ffmpeg import ffmpeg_executable
from pipeline_lib.media.frames_stage import extract_frames
from pipeline_lib.media.shards import Shard


def _frames(folder: Path, count: int, first: int = 1) -> None:
    folder.mkdir(parents=True)
    source = ["-f", "lavfi", "-i", f"testsrc=size=100x60:rate=12:duration={count / 12}"]
    target = ["-start_number", str(first), "%05d.jpg"]
    subprocess.run([ffmpeg_executable(), "-v", "error", *source, *target], check=True, cwd=folder)


def test_something_v1_goes_from_folders_of_frames_to_a_shard(tmp_path: Path) -> None:
    videos = tmp_path / "20bn 100%"
    _frames(videos / "1", 20)
    _frames(videos / "2", 24)
    (videos / "3").mkdir()
    (tmp_path / "train.csv").write_text("1;Pushing something from left to right\n3;Holding something\n")
    (tmp_path / "validation.csv").write_text("2;Holding something\n4;Holding something\n")
    annotations: dict[str, str | None] = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation")}
    dataset = Dataset(format="something_v1", annotations=annotations, videos=[str(videos)], num_shards=1)
    output = tmp_path / "manifest"
    build_manifest(ManifestSpecification(name="something", dataset=dataset), output, 2)
    rows = {row["id"]: row for row in pq.read_table(output / "manifest.parquet").to_pylist()}
    assert [(id, row["status"], row["num_frames"]) for id, row in rows.items()] == [
        ("1", "accepted", 20),
        ("2", "accepted", 24),
        ("3", "rejected", None),
        ("4", "missing", None),
    ]
    assert rows["3"]["reason"] == "empty: the folder holds no images"
    assert rows["1"]["labels"] == ["Pushing something from left to right"]
    frames = FramesSpecification(dataset="s", frame_format="f", frames=FrameFormat(), on_decode_error="reject")
    extract_frames(frames, output / "shards/000.json", tmp_path / "000.h5", 2)
    stored = [(v.id, v.num_frames, v.height, v.width, v.frames_per_second) for v in Shard(tmp_path / "000.h5").videos]
    assert stored == [("1", 20, 60, 100, 12.0), ("2", 24, 60, 100, 12.0)]


def test_the_test_lists_of_something_have_no_labels(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("1;Holding something\n")
    (tmp_path / "validation.csv").write_text("2;Holding something\n")
    (tmp_path / "unlabelled.csv").write_text("7\n8\n")
    entries = {"train": [{"id": "1", "template": "Holding [something]"}], "validation": [], "unlabelled": [{"id": "7"}]}
    for name, found in entries.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    for format, ending, expected in (("something_v1", "csv", ["7", "8"]), ("something_v2", "json", ["7"])):
        annotations: dict[str, str | None] = {name: str(tmp_path / f"{name}.{ending}") for name in entries}
        listing = read_listing(Dataset(format=format, annotations=annotations))
        videos = reject_unusable(listing.videos, 1, ["Holding something"])
        asked = [video for video in videos if video.subsets == ("unlabelled",)]
        assert [(video.id, video.labels, video.reason) for video in asked] == [(id, (), "") for id in expected]


def test_something_v2(tmp_path: Path) -> None:
    entry = {
        "id": "78687",
        "label": "holding potato next to vicks",
        "template": "Holding [something] next to [something]",
    }
    for name in ("train", "validation"):
        (tmp_path / f"{name}.json").write_text(json.dumps([entry] if name == "train" else []))
    (tmp_path / "labels.json").write_text('{"Holding something next to something": "0", "Opening something": "1"}')
    annotations: dict[str, str | None] = {n: str(tmp_path / f"{n}.json") for n in ("train", "validation", "labels")}
    listing = read_listing(Dataset(format="something_v2", annotations=annotations))
    assert [(video.id, video.labels) for video in listing.videos] == [
        ("78687", ("Holding something next to something",))
    ]
    assert listing.classes == ["Holding something next to something", "Opening something"]
    (tmp_path / "train.json").write_text('[{"id": "1", "label": "x"}]')
    with pytest.raises(UserError, match=r"train\.json is not a list of id and template"):
        read_listing(Dataset(format="something_v2", annotations=annotations))


def test_sports1m_has_several_labels_a_video(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("http://www.youtube.com/watch?v=-aBcDeFgHiJ 1,0\n")
    (tmp_path / "validation.txt").write_text("https://www.youtube.com/watch?v=0123456789_ 1\n")
    (tmp_path / "labels.txt").write_text("bmx\ntrack cycling\n")
    annotations: dict[str, str | None] = {n: str(tmp_path / f"{n}.txt") for n in ("train", "validation", "labels")}
    listing = read_listing(Dataset(format="sports1m", annotations=annotations))
    assert [(video.id, video.labels, video.subsets) for video in listing.videos] == [
        ("-aBcDeFgHiJ", ("track cycling", "bmx"), ("train",)),
        ("0123456789_", ("track cycling",), ("validation",)),
    ]
    (tmp_path / "train.txt").write_text("http://www.youtube.com/watch?v=-aBcDeFgHiJ 7\n")
    with pytest.raises(UserError, match=r"train\.txt:1: label 7, but 2 classes"):
        read_listing(Dataset(format="sports1m", annotations=annotations))


@pytest.mark.media
def test_official_ava_action_list(media: Path) -> None:
    actions = read_action_list(media / "annotations/ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt")
    assert len(actions) == 60 and actions[1] == "bend/bow (at the waist)" and max(actions) == 80


def _ava(tmp_path: Path, rows: str) -> Dataset:
    (tmp_path / "actions.pbtxt").write_text(
        'label {\n  name: "stand"\n  label_id: 12\n  label_type: PERSON_MOVEMENT\n}\n'
        'item {\n  name: "sit"\n  id: 11\n}\n'
    )
    (tmp_path / "train.csv").write_text(rows)
    (tmp_path / "validation.csv").write_text("-film000002,0950,0.1,0.1,0.2,0.2,11,3\n")
    (tmp_path / "excluded.csv").write_text("-film000001,0903\n")
    files = {
        "train": "train.csv",
        "validation": "validation.csv",
        "actions": "actions.pbtxt",
        "excluded_train": "excluded.csv",
    }
    return Dataset(
        format="ava", annotations={key: str(tmp_path / name) for key, name in files.items()}, videos=[str(tmp_path)]
    )


def test_ava_boxes_excluded_seconds_and_the_annotated_minutes(tmp_path: Path) -> None:
    dataset = _ava(
        tmp_path,
        "-film000001,0902,0.077,0.151,0.283,0.811,12,0\n"
        "-film000001,0903,0.077,0.151,0.283,0.811,12,0\n"
        "-film000001,0904,0.1,0.2,0.3,0.4,80,1\n",
    )
    listing = read_listing(dataset)
    assert listing.boxes == [
        Box("-film000001", "train", 902.0, 0.077, 0.151, 0.283, 0.811, "stand", 0),
        Box("-film000002", "validation", 950.0, 0.1, 0.1, 0.2, 0.2, "sit", 3),
    ]
    assert listing.classes == ["sit", "stand"] and listing.excluded_times == [("-film000001", 903.0)]
    trusted = dataset.model_copy(update={"probe": "none", "videos": [], "num_shards": 1})
    build_manifest(ManifestSpecification(name="ava", dataset=trusted), tmp_path / "m", 1)
    videos = json.loads((tmp_path / "m/shards/000.json").read_text())["videos"]
    assert [(v["path"], v["start"], v["end"]) for v in videos] == [
        ("-film000001.mp4", 900.0, 1801.0),
        ("-film000002.mp4", 900.0, 1801.0),
    ]
    assert pq.read_table(tmp_path / "m/boxes.parquet").to_pylist()[0] == listing.boxes[0]._asdict()
    with pytest.raises(UserError, match=r"train\.csv:1: the box .* does not lie in"):
        read_listing(_ava(tmp_path, "-film000001,0902,0.5,0.1,0.3,0.8,12,0\n"))


def _tubes() -> dict[str, Any]:
    tube = np.array([[1, 32, 24, 160, 120], [2, 64, 48, 320, 240]], dtype=np.float32)
    return {
        "labels": ["catch", "jump"],
        "gttubes": {"catch/a": {0: [tube]}, "jump/b": {1: [tube[:1], tube[1:]]}},
        "nframes": {"catch/a": 2, "jump/b": 2},
        "train_videos": [["catch/a"], ["jump/b"]],
        "test_videos": [["jump/b"], ["catch/a"]],
        "resolution": {"catch/a": (240, 320), "jump/b": (240, 320)},
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_tubes_of_jhmdb(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "JHMDB-GT.pkl"
    path.write_bytes(pickle.dumps(_tubes(), protocol=protocol))
    listing = read_listing(Dataset(format="jhmdb", annotations={"boxes": str(path)}, num_splits=2))
    assert [(video.id, video.labels, video.subsets) for video in listing.videos] == [
        ("catch/a", ("catch",), ("train", "validation")),
        ("jump/b", ("jump",), ("validation", "train")),
    ]
    assert listing.boxes[0] == Box("catch/a", "", 0.0, 0.1, 0.1, 0.5, 0.5, "catch", 0)
    assert [(box.id, box.time, box.person) for box in listing.boxes[2:]] == [("jump/b", 0.0, 0), ("jump/b", 1.0, 1)]
    with pytest.raises(UserError, match="num_splits asks for 3"):
        read_listing(Dataset(format="jhmdb", annotations={"boxes": str(path)}, num_splits=3))


def test_a_pickle_cannot_run_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    path = tmp_path / "UCF101v2-GT.pkl"
    path.write_bytes(pickle.dumps(_tubes() | {"labels": Hostile()}))
    with pytest.raises(UserError, match="which is neither an array nor a container"):
        read_listing(Dataset(format="ucf101_24", annotations={"boxes": str(path)}))
    assert not (tmp_path / "ran").exists()


def test_a_trusted_list_needs_no_files_and_a_filter_changes_the_digest(tmp_path: Path) -> None:
    header = "label,youtube_id,time_start,time_end,split\n"
    for name in ("train", "validation"):
        rows = "".join(f"class {i % 7},{name[0]}{i:010d},{i % 3},{i % 3 + 10},{name}\n" for i in range(70))
        (tmp_path / f"{name}.csv").write_text(header + rows)
    annotations = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation")}
    base: dict[str, Any] = {"format": "kinetics", "annotations": annotations, "probe": "none", "num_shards": 4}
    digests = set()
    for settings, expected in (
        ({}, 140),
        ({"per_class": {"train": 2}}, 84),
        ({"per_class": {"train": 2}, "seed": 1}, 84),
    ):
        specification = ManifestSpecification(name="k", dataset=Dataset(**base, filter=settings))
        summary = build_manifest(specification, tmp_path / "m", 1)
        assert summary["status"] == {"accepted": expected} and summary["num_listed"] == 140
        digests.add(summary["digest"])
    assert len(digests) == 3


GARBAGE = {
    "empty": b"",
    "binary": bytes(range(256)) * 20,
    "text": "nothing of the kind\nßö\n".encode(),
    "zeros": b"a\0b,c;d\n" * 5,
    "json": b'{"a": [1, 2], "b": null}',
    "list": b"[1, 2, 3]",
    "pickle": pickle.dumps({"labels": 3, "gttubes": [], "train_videos": 1, "test_videos": {}, "resolution": None}),
    "tubes": pickle.dumps(_tubes() | {"resolution": {}}),
}


@pytest.mark.parametrize("content", [*GARBAGE, "folder"])
@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"folder", "generated"}))
def test_whatever_the_lists_hold_the_user_gets_a_message(tmp_path: Path, format: str, content: str) -> None:
    annotations: dict[str, str | None] = {}
    for key in FORMATS[format].lists or {"train": ""}:
        path = tmp_path / f"{key}.json" if content in ("json", "list") else tmp_path / key
        if content == "folder" or key == "splits":
            path.mkdir()
            for name in ("classInd.txt", "trainlist01.txt", "run_test_split1.txt") if key == "splits" else ():
                (path / name).write_bytes(GARBAGE.get(content, b"?"))
        else:
            path.write_bytes(GARBAGE[content])
        annotations[key] = str(path)
    dataset = Dataset(format=format, annotations=annotations, videos=[str(tmp_path)], probe="none", num_shards=1)
    with pytest.raises(UserError) as caught:
        build_manifest(ManifestSpecification(name="mine", dataset=dataset), tmp_path / "manifest", 1)
    assert str(tmp_path) in str(caught.value) or "mine" in str(caught.value)
    assert not (tmp_path / "manifest/summary.json").exists()

"""Importers on official lists and on files made in the official formats."""

import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.importers import read_listing
from pipeline_lib.manifests.schema import ListedVideo, reject_unusable
from pipeline_lib.manifests.tables import draw_validation


@pytest.mark.media
@pytest.mark.parametrize(
    ("file", "count", "classes"), [("kinetics-400_val.csv", 19906, 400), ("kinetics-600_val.csv", 30000, 600)]
)
def test_official_kinetics_lists(media: Path, file: str, count: int, classes: int) -> None:
    path = str(media / "annotations" / file)
    listing = read_listing(Dataset(format="kinetics", annotations={"validation": path}))
    assert len(listing.videos) == count
    assert len({video.labels for video in listing.videos}) == classes
    assert {video.subsets for video in listing.videos} == {("validation",)}
    assert all(len(video.id) == 11 + 14 for video in listing.videos)
    if count == 19906:
        assert listing.videos[0] == ListedVideo(
            "0wR5jVB-WPk_000417_000427", ("abseiling",), ("validation",), ("0wR5jVB-WPk_000417_000427",), 417.0, 427.0
        )


@pytest.mark.media
def test_official_ucf101_splits(media: Path) -> None:
    dataset = Dataset(format="ucf101", annotations={"splits": str(media / "annotations/ucf101")}, num_splits=3)
    listing = read_listing(dataset)
    # The counts of UCF101's readme: 13,320 videos, 9,537 / 3,783 in the first split.
    assert len(listing.videos) == 13320 and len(listing.classes or []) == 101
    counts = [Counter(video.subsets[split] for video in listing.videos) for split in range(3)]
    assert counts[0] == {"train": 9537, "validation": 3783}
    assert counts[1] == {"train": 9586, "validation": 3734}
    assert counts[2] == {"train": 9624, "validation": 3696}
    for split in range(3):
        sides: dict[str, set[str]] = {}
        for video in listing.videos:
            sides.setdefault(video.group, set()).add(video.subsets[split])
        assert all(len(side) == 1 for side in sides.values()), "a group is on both sides"


@pytest.mark.media
def test_official_hmdb51_splits(media: Path) -> None:
    dataset = Dataset(format="hmdb51", annotations={"splits": str(media / "annotations/hmdb51")}, num_splits=3)
    listing = read_listing(dataset)
    # 70 training and 30 test videos of each of 51 classes in every split.
    assert len(listing.classes or []) == 51 and len(listing.videos) == 6766
    for split in range(3):
        counts = Counter(video.subsets[split] for video in listing.videos)
        assert counts["train"] == 3570 and counts["validation"] == 1530 and counts[""] == 1666


def test_kinetics_json_of_the_crawler(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    entry = {"annotations": {"label": "abseiling", "segment": [5.0, 15.0]}, "duration": 10.0, "subset": "train"}
    path.write_text(json.dumps({"-abcDEF_123": entry}))
    listing = read_listing(Dataset(format="kinetics", annotations={"train": str(path)}))
    assert listing.videos == [
        ListedVideo("-abcDEF_123_000005_000015", ("abseiling",), ("train",), ("-abcDEF_123_000005_000015",), 5.0, 15.0)
    ]
    path.write_text('{"-abcDEF_123": {"label": "abseiling"}}')
    with pytest.raises(UserError, match=r"train\.json is not a Kinetics JSON"):
        read_listing(Dataset(format="kinetics", annotations={"train": str(path)}))


def test_kinetics_csv_errors_name_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    dataset = Dataset(format="kinetics", annotations={"train": str(path)})
    path.write_text("label,youtube_id,time_start,time_end,split\nabseiling,aaaaaaaaaaa,zero,10,train\n")
    with pytest.raises(UserError, match=r"train\.csv:2: time_start is 'zero'"):
        read_listing(dataset)
    path.write_text("label,id\nabseiling,aaaaaaaaaaa\n")
    with pytest.raises(UserError, match="youtube_id, time_start, time_end are missing; found label, id"):
        read_listing(dataset)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"train\.csv"):
        read_listing(dataset)


def test_table_with_subsets_groups_and_several_labels(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label,subset,group\na/1.mp4,run|jump,train,g1\nb/2.mp4,run,test,g2\n")
    listing = read_listing(Dataset(format="table", annotations={"all": str(path)}))
    assert listing.videos[0] == ListedVideo("a/1", ("run", "jump"), ("train",), ("a/1.mp4",), group="g1")
    assert listing.videos[1].subsets == ("validation",)
    path.write_text("path,label,subset\na/1.mp4,run,later\n")
    with pytest.raises(UserError, match=r"list\.csv:2: subset is 'later'"):
        read_listing(Dataset(format="table", annotations={"all": str(path)}))


def test_table_per_list(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        (tmp_path / f"{name}.csv").write_text(f"path,label\n{name}_0.mp4,up\n{name}_1.mp4,down\n")
    annotations: dict[str, str | None] = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation")}
    listing = read_listing(Dataset(format="table", annotations=annotations))
    assert [(video.id, video.subsets) for video in listing.videos] == [
        ("train_0", ("train",)),
        ("train_1", ("train",)),
        ("validation_0", ("validation",)),
        ("validation_1", ("validation",)),
    ]


def test_folder_with_and_without_lists(tmp_path: Path) -> None:
    for name in ("run/1.mp4", "run/2.mkv", "run/._1.mp4", "run/notes.txt", "jump/3.webm", "jump/4.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = read_listing(Dataset(format="folder", videos=[str(tmp_path)], validation_share=0.5))
    assert {(video.id, video.labels[0]) for video in listing.videos} == {
        ("run/1", "run"),
        ("run/2", "run"),
        ("jump/3", "jump"),
        ("jump/4", "jump"),
    }
    assert Counter(video.subsets + video.labels for video in listing.videos) == {
        (subset, label): 1 for subset in ("train", "validation") for label in ("run", "jump")
    }
    divided = tmp_path / "divided"
    for name in ("train/run/1.mp4", "val/run/2.mp4"):
        (divided / name).parent.mkdir(parents=True)
        (divided / name).touch()
    listing = read_listing(Dataset(format="folder", videos=[str(divided)]))
    assert {(video.id, video.subsets) for video in listing.videos} == {
        ("train/run/1", ("train",)),
        ("val/run/2", ("validation",)),
    }


def test_drawn_validation_keeps_groups_together_and_ignores_the_order() -> None:
    videos = [ListedVideo(f"{i}", ("ab"[i % 2],), ("",), (f"{i}",), group=f"g{i // 4}") for i in range(80)]
    drawn = {video.id: video.subsets[0] for video in draw_validation(videos, 0.25)}
    assert drawn == {video.id: video.subsets[0] for video in draw_validation(videos[::-1], 0.25)}
    for group in range(20):
        assert len({drawn[f"{i}"] for i in range(4 * group, 4 * group + 4)}) == 1
    assert 0.15 < list(drawn.values()).count("validation") / 80 < 0.35


def test_duplicates_and_unknown_labels_are_rows_with_a_reason() -> None:
    def video(id: str, label: str) -> ListedVideo:
        return ListedVideo(id, (label,) if label else (), ("train",), (id,))

    rows = reject_unusable(
        [video("a", "run"), video("a", "jump"), video("b", "fly"), video("c", "")], 1, ["run", "jump"]
    )
    assert [(row.id, row.reason) for row in rows] == [
        ("a", ""),
        ("a#2", "duplicate video: listed before in train as run"),
        ("b", "unknown label: fly"),
        ("c", "unknown label: none is given"),
    ]
    with pytest.raises(UserError, match=r"lists \['train'\] for 3 split"):
        reject_unusable([video("a", "run")], 3, None)


def test_parts_of_a_file_are_videos_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label,start,end\na/1.mp4,run,0,2.5\na/1.mp4,jump,2.5,4\nb/2.mp4,run,,\n")
    listing = read_listing(Dataset(format="table", annotations={"train": str(path)}, validation_share=0.0))
    assert listing.videos == [
        ListedVideo("a/1_0.00_2.50", ("run",), ("train",), ("a/1.mp4",), 0.0, 2.5, "a/1.mp4", trim=True),
        ListedVideo("a/1_2.50_4.00", ("jump",), ("train",), ("a/1.mp4",), 2.5, 4.0, "a/1.mp4", trim=True),
        ListedVideo("b/2", ("run",), ("train",), ("b/2.mp4",)),
    ]
    # Drawn lists keep the parts of one file on one side.
    halves = read_listing(Dataset(format="table", annotations={"train": str(path)}, validation_share=0.5)).videos
    assert len({video.subsets for video in halves if video.id.startswith("a/")}) == 1
    for interval, told in (
        ("zero,3", "start is 'zero'"),
        ("2,", "start is given alone"),
        ("3,3", "the part from 3 to 3 s"),
    ):
        path.write_text(f"path,label,start,end\na/1.mp4,run,{interval}\n")
        with pytest.raises(UserError, match=rf"list\.csv:2: {told}"):
            read_listing(Dataset(format="table", annotations={"train": str(path)}))


def test_an_optional_list_of_classes_is_no_list_of_videos(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("run\njump\n")
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end,split\nfly,aaaaaaaaaaa,0,10,train\n")
    annotations = {"train": str(tmp_path / "train.csv"), "labels": str(tmp_path / "classes.txt")}
    listing = read_listing(Dataset(format="kinetics", annotations=annotations))
    assert listing.classes == ["run", "jump"] and set(listing.sources) == {"train.csv", "classes.txt"}
    assert reject_unusable(listing.videos, 1, listing.classes)[0].reason == "unknown label: fly"
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(UserError, match=r"classes\.txt lists no class"):
        read_listing(Dataset(format="kinetics", annotations=annotations))


def test_lists_of_one_name_are_told_apart(tmp_path: Path) -> None:
    annotations: dict[str, str | None] = {}
    for name in ("train", "validation"):
        (tmp_path / name).mkdir()
        annotations[name] = str(tmp_path / name / "list.csv")
        (tmp_path / name / "list.csv").write_text(f"path,label\n{name}.mp4,run\n")
    listing = read_listing(Dataset(format="table", annotations=annotations))
    assert list(listing.sources) == ["train/list.csv", "validation/list.csv"]

"""Lists as people keep them: spellings, encodings, parts beyond a file, files that are no video of the data set."""

import csv
import io
import json
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline_lib.configuration.data import Dataset, Filter
from pipeline_lib.configuration.specification import ManifestSpecification
from pipeline_lib.manifests.build import build_manifest
from pipeline_lib.manifests.check import check_table
from pipeline_lib.manifests.filters import apply_filter
from pipeline_lib.manifests.importers import read_listing
from pipeline_lib.manifests.matching import FileIndex
from pipeline_lib.manifests.one_sided import one_sided_classes, one_sided_lines
from pipeline_lib.manifests.schema import ListedVideo
from pipeline_lib.manifests.text_files import read_lines
from pipeline_lib.media.ffmpeg import ffmpeg_executable

ENCODINGS = {
    "plain": lambda text: text.encode(),
    "mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 be": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "utf-32": lambda text: text.encode("utf-32"),
    "windows": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "old mac": lambda text: text.replace("\n", "\r").encode(),
    "blanks": lambda text: "".join(f"{line} \t \n" for line in text.splitlines()).encode() + b"\n \n",
    "decomposed": lambda text: unicodedata.normalize("NFD", text).encode(),
}
CLASSES = ["Abseiling", "Ça va", "naïve run"]


def _write(path: Path, text: str, encoding: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ENCODINGS[encoding](text))
    return str(path)


def _csv(rows: list[list[str]], delimiter: str = ",") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _lists(folder: Path, encoding: str) -> dict[str, Dataset]:
    """A data set of every format whose lists are text, all lists written in one encoding."""
    youtube = ["aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"]

    def write(name: str, text: str) -> str:
        return _write(folder / name, text, encoding)

    def pair(text: str, name: str) -> dict[str, str | None]:
        return {"train": write(f"train_{name}", text), "validation": write(f"validation_{name}", text)}

    kinetics = [["label", "youtube_id", "time_start", "time_end", "split"]]
    kinetics += [[label, id, "1", "11", "train"] for label, id in zip(CLASSES, youtube, strict=True)]
    table = _csv([["path", "label"], *([f"{id}.mp4", label] for label, id in zip(CLASSES, youtube, strict=True))])
    crawler = {
        id: {"annotations": {"label": label, "segment": [1, 11]}, "subset": "training"}
        for label, id in zip(CLASSES, youtube, strict=True)
    }
    second = [{"id": index, "template": label} for index, label in enumerate(CLASSES)]
    first = "\n".join(f"{index};{label}" for index, label in enumerate(CLASSES)) + "\n"
    sports = "\n".join(f"http://www.youtube.com/watch?v={id} {index}" for index, id in enumerate(youtube)) + "\n"
    names = "\n".join(CLASSES) + "\n"
    splits = folder / "splits"
    write("splits/classInd.txt", "1 Abseiling\n2 Ça\n")
    write("splits/trainlist01.txt", "Abseiling/v_Abseiling_g01_c01.avi 1\nÇa/v_Ca_g01_c01.avi 2\n")
    write("splits/testlist01.txt", "Abseiling/v_Abseiling_g02_c01.avi\n")
    write("hmdb/Ça_test_split1.txt", "a.avi 1\nb.avi 2\n")
    write("actions.pbtxt", 'item {\n name: "Ça va"\n id: 1\n}\n')
    box = "aaaaaaaaaaa,902.0,0.1,0.1,0.5,0.5,1,0\n"
    return {
        "kinetics": Dataset(format="kinetics", annotations=pair(_csv(kinetics), "k.csv")),
        "crawler": Dataset(
            format="kinetics", annotations=pair(json.dumps(crawler, ensure_ascii=False, indent=1), "k.json")
        ),
        "table": Dataset(format="table", annotations=pair(table, "t.csv") | {"labels": write("labels.txt", names)}),
        "something_v1": Dataset(
            format="something_v1", annotations=pair(first, "s.csv") | {"labels": write("labels.csv", names)}
        ),
        "something_v2": Dataset(
            format="something_v2",
            annotations=pair(json.dumps(second, ensure_ascii=False, indent=1), "s.json")
            | {"labels": write("labels.json", json.dumps(CLASSES, ensure_ascii=False))},
        ),
        "sports1m": Dataset(
            format="sports1m", annotations=pair(sports, "p.txt") | {"labels": write("sports.txt", names)}
        ),
        "ucf101": Dataset(format="ucf101", annotations={"splits": str(splits)}),
        "hmdb51": Dataset(format="hmdb51", annotations={"splits": str(folder / "hmdb")}),
        "ava": Dataset(format="ava", annotations=pair(box, "a.csv") | {"actions": str(folder / "actions.pbtxt")}),
    }


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name != "plain"])
def test_every_list_is_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    plain, other = (_lists(tmp_path / name, name) for name in ("plain", encoding))
    for name in plain:
        wanted, found = read_listing(plain[name]), read_listing(other[name])
        assert found.videos == wanted.videos, name
        assert found.classes == wanted.classes and found.boxes == wanted.boxes, name
    videos = [ListedVideo(str(index), (label,), ("train",), (str(index),)) for index, label in enumerate(CLASSES)]
    path = _write(tmp_path / "filter.txt", "# wanted\nÇa va\nAbseiling\n", encoding)
    assert [video.id for video in apply_filter(videos, Filter(classes=path))] == ["0", "1"]
    assert read_lines(Path(path)) == ["# wanted", "Ça va", "Abseiling"]


def test_a_file_is_found_in_either_unicode_form(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / form / unicodedata.normalize(form, "é")).mkdir(parents=True)
        path = tmp_path / form / unicodedata.normalize(form, "é/naïve.mp4")
        path.touch()
        for listed in ("NFC", "NFD"):
            index = FileIndex([str(tmp_path / form)])
            for name in ("é/naïve.mp4", "naïve", "é/naïve"):
                assert index.find(unicodedata.normalize(listed, name)) == str(path)


def test_classes_that_one_list_lacks_are_named_with_the_nearest_spelling() -> None:
    rows = [("train", (label,)) for label in ("petting animal (not cat)", "abseiling", "run", "juggle balls", "sit")]
    rows += [("validation", (label,)) for label in ("petting_animal_(not_cat)", "Abseiling", "run", "juggling balls")]
    found = one_sided_classes(rows)
    assert found == {
        "train": {
            "Abseiling": "abseiling",
            "juggling balls": "juggle balls",
            "petting_animal_(not_cat)": "petting animal (not cat)",
        },
        "validation": {
            "abseiling": "Abseiling",
            "juggle balls": "juggling balls",
            "petting animal (not cat)": "petting_animal_(not_cat)",
            "sit": "",
        },
    }
    lines = one_sided_lines({"subset_1": found}, 3)
    assert lines[0].startswith("subset_1: 3 classes have no train clip: Abseiling (there is abseiling), ")
    assert lines[1].endswith(" and 1 more") and "sit" not in lines[1]
    assert one_sided_classes(rows[:5]) == {}
    assert one_sided_classes([("train", ("a",)), ("validation", ("a",)), ("", ("b",))]) == {}
    many = [("train", (f"class {number}",)) for number in range(20000)]
    many += [("validation", (f"Class_{number}",)) for number in range(20000)]
    assert one_sided_classes(many)["train"]["Class_7"] == "class 7"


def _clip(path: Path, seconds: float = 2.0, container: str = "mp4") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ["-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=25:duration={seconds}"]
    coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", container]
    subprocess.run([ffmpeg_executable(), "-nostdin", "-v", "error", "-y", *source, *coding, str(path)], check=True)
    return path


def _rows(dataset: Dataset, output: Path) -> dict[str, dict[str, Any]]:
    build_manifest(ManifestSpecification(name="few", dataset=dataset), output, 2)
    return {row["id"]: row for row in pq.read_table(output / "manifest.parquet").to_pylist()}


def test_two_spellings_and_skipped_files_are_said_by_the_manifest_and_its_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    for index, name in enumerate(
        ("train/abseiling/1.mp4", "train/run/2.mp4", "validation/Abseiling/3.mp4", "validation/run/4.mp4")
    ):
        _clip(videos / name, 1 + index / 5)
    _clip(videos / "train/run/person01/5.mp4")
    _clip(videos / "train/run/6.mts", container="mpegts")
    (videos / "readme.txt").write_text("hello")
    (videos / "train/list").write_text("hello")
    (videos / "train/run/.hidden.mp4").write_text("hello")
    _clip(videos / "7.mp4")
    output = tmp_path / "manifest"
    rows = _rows(Dataset(format="folder", videos=[str(videos)], num_shards=1), output)
    assert len(rows) == 4 and {row["status"] for row in rows.values()} == {"accepted"}
    summary = json.loads((output / "summary.json").read_text())
    assert summary["one_sided_classes"] == {
        "subset_1": {"train": {"Abseiling": "abseiling"}, "validation": {"abseiling": "Abseiling"}}
    }
    assert summary["skipped_files"] == {
        "ending .mts": 1,
        "ending .txt": 1,
        "no ending": 1,
        "not directly in a class folder": 2,
    }
    lines = [
        "subset_1: 1 class has no train clip: Abseiling (there is abseiling)",
        "subset_1: 1 class has no validation clip: abseiling (there is Abseiling)",
        "5 files are skipped: 1 × ending .mts, 1 × ending .txt, 1 × no ending, 2 × not directly in a class folder",
    ]
    said, table = capsys.readouterr().err, check_table(output)
    for line in lines:
        assert f"few: {line}" in said and line in table.splitlines()


def test_parts_that_are_too_short_or_lie_past_the_end(tmp_path: Path) -> None:
    _clip(tmp_path / "videos/a.mp4", seconds=4)
    parts = {
        "a_0.00_0.20": "too short: 5 frames of the file lie in the part from 0 to 0.2 s, 8 are needed",
        "a_0.00_0.32": "",
        "a_1.00_1.04": "too short: 1 frame of the file lie in the part from 1 to 1.04 s, 8 are needed",
        "a_3.80_9.00": "too short: 5 frames of the file lie in the part from 3.8 to 9 s, 8 are needed",
        "a_3.00_9.00": "",
        "a_4.00_9.00": "too short: the file ends at 4.0 s, the video's part begins at 4 s",
        "a_7.00_9.00": "too short: the file ends at 4.0 s, the video's part begins at 7 s",
    }
    rows = ["path,label,start,end"]
    rows += [f"a.mp4,run,{part.split('_')[1]},{part.split('_')[2]}" for part in parts]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    dataset = Dataset(
        format="table",
        annotations={"train": str(tmp_path / "list.csv")},
        videos=[str(tmp_path / "videos")],
        num_shards=1,
        maximum_reject_share=1.0,
        validation_share=0.0,
    )
    assert {id: row["reason"] for id, row in _rows(dataset, tmp_path / "manifest").items()} == parts
    # Where no frame is counted, the part's own length is all that is known.
    headers = _rows(dataset.model_copy(update={"probe": "headers"}), tmp_path / "headers")
    assert {id for id, row in headers.items() if row["reason"]} == {"a_0.00_0.20", "a_1.00_1.04"}

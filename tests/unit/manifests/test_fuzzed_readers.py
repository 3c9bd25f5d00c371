"""Anything may stand in a file that a user gives: every reader answers with rows or with one message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline_lib.artefacts.manifest_summary import read_summary
from pipeline_lib.artefacts.records import read_header, read_record
from pipeline_lib.artefacts.sealing import sealed
from pipeline_lib.configuration.data import Dataset, Filter
from pipeline_lib.configuration.download import Download
from pipeline_lib.configuration.merging import read_yaml
from pipeline_lib.downloads.items import read_items
from pipeline_lib.downloads.stage import _text_of
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.results import read_metrics
from pipeline_lib.manifests.build import _columns, list_videos, rows_digest
from pipeline_lib.manifests.filters import apply_filter
from pipeline_lib.manifests.matching import FileIndex, match
from pipeline_lib.manifests.schema import ListedVideo, manifest_schema
from pipeline_lib.manifests.shard_lists import read_shard_list
from pipeline_lib.models.importing.checkpoint_files import read_checkpoint
from pipeline_lib.planning.limits import Limits
from pipeline_lib.planning.starts import read_metadata
from pipeline_lib.reporting.collect import read_curve

CASES = [300, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])]
YOUTUBE = "aaaaaaaaaaa"

# What has broken readers: numbers that are none or too long, halves of characters, depth, signs of the formats.
TOKENS = [
    *("nan", "inf", "-inf", "1e999", "-1", "1e-400", "9" * 5_000, "0x10", "1_000", "١٢", "NaN", "Infinity", "None"),
    *(
        "\\ud800",
        "\\u0000",
        "\ud800".encode("utf-8", "surrogatepass"),
        "\0",
        "\x85",
        "\u2028",
        "\ufeff",
        "é",
        "e\u0301",
    ),
    *("[" * 3_000, "{" * 200, '{"a":' * 3_000, "(" * 3_000, "- " * 2_000, "{}", "[]", "null", "true", '""', '"x"', "0"),
    *(
        ",",
        ";",
        "|",
        ":",
        "=",
        '"',
        "'",
        "\n",
        "\r",
        "\t",
        "\\",
        "/",
        "../",
        "-",
        "#",
        "%",
        "*",
        "&a ",
        "*a",
        "!!python/",
    ),
    *("*b, *b, *b", "? [a]\n: 1", "<<: *a", "---\n", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\x00\x00\xfe\xff", b"\xe9"),
]
_TOKENS = [token.encode() if isinstance(token, str) else token for token in TOKENS]


def damaged(*whole: bytes) -> st.SearchStrategy[bytes]:
    """One of some sound files after a few edits: pieces left out, repeated, or replaced by tokens or any bytes."""
    places = st.integers(0, 1 << 16)
    pieces = st.sampled_from(_TOKENS) | st.binary(max_size=6) | st.just(None)
    edits = st.lists(st.tuples(places, st.integers(0, 30), pieces), min_size=1, max_size=4)

    def apply(start: bytes, changes: list[tuple[int, int, bytes | None]]) -> bytes:
        content = start
        for place, length, piece in changes:
            first = place % (len(content) + 1)
            middle = content[first : first + length] * 2 if piece is None else piece
            content = content[:first] + middle + content[first + length :]
        return content

    return st.builds(apply, st.sampled_from(whole), edits) | st.binary(max_size=40)


def fuzz(num_cases: int, contents: st.SearchStrategy[bytes], read: Callable[[bytes], object]) -> None:
    """Try ``read`` on drawn contents; only a ``UserError`` of moderate length may come."""

    @settings(
        max_examples=num_cases,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(contents)
    def run(content: bytes) -> None:
        try:
            read(content)
        except UserError as error:
            assert len(str(error)) < 20_000
            # The message goes to a terminal.
            str(error).encode("utf-8", "backslashreplace")

    run()


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def plain(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


SEGMENT = {"annotations": {"label": "run", "segment": [1, 11]}, "subset": "training"}
# Format → its annotations (key → file) and the sound contents of the one file that is damaged, which is named first.
LISTS: dict[str, tuple[str, dict[str, str], tuple[bytes, ...]]] = {
    "kinetics": (
        "kinetics",
        {"train": "f.csv", "validation": "good.csv"},
        (lines("label,youtube_id,time_start,time_end,split", f"run,{YOUTUBE},1,11,train", f'"a,b",{YOUTUBE},2,12,x'),),
    ),
    "kinetics JSON": (
        "kinetics",
        {"train": "f.json", "validation": "good.csv"},
        (plain({YOUTUBE: SEGMENT, "b": SEGMENT}),),
    ),
    "kinetics classes": (
        "kinetics",
        {"labels": "f.txt", "train": "good.csv", "validation": "good.csv"},
        (lines("run", "sit still"),),
    ),
    "table": (
        "table",
        {"all": "f.csv"},
        (
            lines("path,label,start,end,subset,group", "a.mp4,run,0,1.5,train,x", "b/c.mp4,sit|run,,,validation,"),
            lines("path,label", "a.mp4,run", '"b.mp4",sit'),
        ),
    ),
    "something_v1": ("something_v1", {"train": "f.csv", "validation": "good1.csv"}, (lines("1;run", "2;sit still"),)),
    "something_v2": (
        "something_v2",
        {"train": "f.json", "validation": "good2.json"},
        (plain([{"id": "1", "template": "Moving [something]"}, {"id": 2, "template": "x", "placeholders": ["y"]}]),),
    ),
    "sports1m": (
        "sports1m",
        {"train": "f.txt", "validation": "good3.txt"},
        (lines(f"http://www.youtube.com/watch?v={YOUTUBE} 1,2", f"https://youtu.be/{YOUTUBE} 0"),),
    ),
    "ava": (
        "ava",
        {"train": "f.csv", "validation": "good4.csv", "actions": "actions.pbtxt"},
        (lines(f"{YOUTUBE},0902,0.1,0.2,0.5,0.6,1,0", f"{YOUTUBE},903.5,0,0,1,1,2,"),),
    ),
    "ava actions": (
        "ava",
        {"actions": "f.pbtxt", "train": "good4.csv", "validation": "good4.csv"},
        (b'item {\n  name: "run"\n  id: 1\n}\nlabel { name: "sit" label_id: 2 }\n',),
    ),
    "ucf101": ("ucf101", {"splits": "ucf101"}, (lines("Run/v_Run_g01_c01.avi 1", "Sit/v_Sit_g02_c01.avi 2"),)),
    "hmdb51": ("hmdb51", {"splits": "hmdb51"}, (lines("a b.avi 1", "c.avi 2", "d.avi 0"),)),
}
GOOD = {
    "good.csv": lines("label,youtube_id,time_start,time_end,split", f"run,{YOUTUBE},1,11,train"),
    "good1.csv": lines("3;run"),
    "good2.json": plain([{"id": "3", "template": "x"}]),
    "good3.txt": lines("http://www.youtube.com/watch?v=bbbbbbbbbbb 1"),
    "good4.csv": lines("bbbbbbbbbbb,0902,0.1,0.2,0.5,0.6,1,0"),
    "actions.pbtxt": b'item {\n  name: "run"\n  id: 1\n}\n',
    "ucf101/classInd.txt": lines("1 Run", "2 Sit"),
    "ucf101/testlist01.txt": lines("Run/v_Run_g03_c01.avi"),
}
DAMAGED_IN_FOLDER = {"ucf101": "trainlist01.txt", "hmdb51": "run_test_split1.txt"}


@pytest.mark.parametrize("num_cases", CASES)
@pytest.mark.parametrize("name", LISTS)
def test_a_damaged_list_is_rows_or_a_message(tmp_path: Path, name: str, num_cases: int) -> None:
    format, files, whole = LISTS[name]
    for file, content in GOOD.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    first = tmp_path / next(iter(files.values()))
    if format in DAMAGED_IN_FOLDER:
        first.mkdir(exist_ok=True)
        first /= DAMAGED_IN_FOLDER[format]
    dataset = Dataset(
        format=format, annotations={key: str(tmp_path / file) for key, file in files.items()}, videos=[str(tmp_path)]
    )
    index = FileIndex(dataset.videos, folders=False)

    def read(content: bytes) -> None:
        first.write_bytes(content)
        _, videos = list_videos("few", dataset)
        # What the manifest does with the rows.
        columns = _columns(videos, match(videos, index, None), {}, dataset)
        pa.table(columns, schema=manifest_schema(1))
        rows_digest(columns, 1, {})
        json.dumps(columns["id"], ensure_ascii=False).encode()

    for content in whole:
        read(content)
    fuzz(num_cases, damaged(*whole), read)


def weights(metadata: dict[str, str]) -> bytes:
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": metadata}
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def _items(path: Path, key: str) -> object:
    source = {"urls": str(path)} if key == "urls" else {"annotations": [str(path)], "template": "http://h/{id}"}
    return read_items(
        Download(kind="files", destination=str(path.parent), **source), lambda _: _text_of(str(path), None, path)
    )


SOUND = lines("url,path,size", "http://h/a.mp4,a.mp4,12", "http://h/b.mp4,,")
ANCHORS = b"a: &a [1, 2]\nb: &b {x: *a, y: [*a, *a]}\nc: {<<: *b, 400: t}\n"
FILES: dict[str, tuple[str, Callable[[Path], object], tuple[bytes, ...]]] = {
    "YAML": ("f.yaml", read_yaml, (ANCHORS,)),
    "profile": (
        "f.yaml",
        Limits.of_profile,
        (b"jobs: 4\nset-threads: {train: 2}\nset-resources: {train: {gpu: 1}}\n",),
    ),
    "shard list": (
        "000.json",
        read_shard_list,
        (plain(sealed({"videos": [{"id": "a", "path": "a.mp4", "digest": "d"}]})),),
    ),
    "summary": ("summary.json", read_summary, (plain(sealed({"digest": "d", "classes": ["a"], "provenance": {}})),)),
    "metrics": ("metrics.json", read_metrics, (plain(sealed({"metrics": {"video_top1": 1.0}, "experiment": "e"})),)),
    "training log": (
        "metrics.jsonl",
        lambda path: read_curve(path, "x"),
        (lines('{"step": 1, "total": 2.5}', '{"step": 2, "total": 2.0, "rate": 0.1}'),),
    ),
    "record": ("a.json", read_record, (plain({"provenance": {"content": "c", "inputs": {}}}),)),
    "header of weights": ("a.safetensors", read_header, (weights({"y": '{"a": 1}', "x": "text"}),)),
    "metadata of weights": ("a.safetensors", read_metadata, (weights({"y": '{"a": 1}'}),)),
    "imported weights": ("a.safetensors", read_checkpoint, (weights({"a": "b"}),)),
    "addresses": ("urls.txt", lambda path: _items(path, "urls"), (SOUND, b"http://h/a.mp4\nhttp://h/b.mp4\n")),
    "fetched annotations": (
        "a.csv",
        lambda path: _items(path, "annotations"),
        (lines("label,youtube_id,time_start,time_end", f"run,{YOUTUBE},1,11"),),
    ),
    "filter": (
        "ids.txt",
        lambda path: apply_filter([ListedVideo("a", ("run",), ("train",), ("a",))], Filter(ids=str(path))),
        (lines("# some", "a", "b.mp4"),),
    ),
}


@pytest.mark.parametrize("num_cases", CASES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_its_content_or_a_message(tmp_path: Path, name: str, num_cases: int) -> None:
    file, read, whole = FILES[name]
    path = tmp_path / file

    def read_content(content: bytes) -> None:
        path.write_bytes(content)
        read(path)

    for content in whole:
        read_content(content)
    fuzz(num_cases, damaged(*whole), read_content)

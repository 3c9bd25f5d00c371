"""An index in flat columns: what it holds, and what another process gets of it."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed_set import PackedSet, make_packed_set, measure_strengths

from pipeline_lib.artefacts.digest import digest
from pipeline_lib.artefacts.manifest_summary import read_summary
from pipeline_lib.clips import index as index_module
from pipeline_lib.clips.columns import Labels, SharedArrays, Texts
from pipeline_lib.clips.index import ClipIndex, build_index
from pipeline_lib.media.shards import Shard


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    made = make_packed_set(tmp_path_factory.mktemp("columns"), num_train=16, lengths=(12, 20))
    measure_strengths(made)
    return made


@pytest.fixture(scope="module")
def index(packed: PackedSet) -> ClipIndex:
    return build_index(packed.layout, packed.name, "short36", "exact", packed.num_shards, 1, "train", True)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.data())
def test_texts_are_those_that_went_in(texts: list[str], data: st.DataObject) -> None:
    column = Texts.of(texts)
    assert list(column) == texts and len(column) == len(texts)
    cut = data.draw(st.slices(len(texts)))
    assert list(column[cut]) == texts[cut]
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1))) if texts else []
    assert list(column.take(np.array(rows, dtype=np.int64))) == [texts[row] for row in rows]
    if texts:
        assert column[-1] == texts[-1]
    with pytest.raises(IndexError):
        column[len(texts)]


@given(st.lists(st.lists(st.integers(0, 1000)).map(tuple)))
def test_labels_are_those_that_went_in(labels: list[tuple[int, ...]]) -> None:
    assert list(Labels.of(labels)) == labels


@given(st.lists(st.sampled_from(["u1", "<i4", "<i8", "<f4", "<f8"])), st.data())
def test_another_process_sees_the_same_arrays(types: list[str], data: st.DataObject) -> None:
    arrays = {
        f"column {number}": np.arange(data.draw(st.integers(0, 100))).astype(dtype)
        for number, dtype in enumerate(types)
    }
    shared = SharedArrays(arrays)
    loaded = pickle.loads(pickle.dumps(shared))
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype and np.array_equal(loaded[name], array)
        assert not len(array) or not loaded[name].flags.writeable


def test_the_digest_is_that_of_all_rows_at_once(
    packed: PackedSet, index: ClipIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = list(read_summary(packed.layout.summary(packed.name)).classes)
    shards = [[Shard(path) for path in paths] for paths in (index.frames_paths, index.motion_paths)]
    videos = {video.id: video for shard in shards[0] for video in shard.videos}
    rows = [
        [id, list(labels), videos[id].num_frames, videos[id].height, videos[id].width]
        for id, labels in zip(index.ids, index.labels, strict=True)
    ]
    assert [row[0] for row in rows] == sorted(videos.keys() & {str(id) for id in index.ids})
    origins = [shard.record["content"] for pair in zip(*shards, strict=True) for shard in pair]
    plain = build_index(packed.layout, packed.name, "short36", "exact", packed.num_shards, 1, "train")
    assert plain.digest == digest([classes, rows, origins])
    monkeypatch.setattr(index_module, "_DIGEST_ROWS", 3)
    again = build_index(packed.layout, packed.name, "short36", "exact", packed.num_shards, 1, "train")
    assert again.digest == plain.digest


def test_a_process_that_is_started_anew_reads_the_same_index(index: ClipIndex, tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(pickle.dumps(index))
    program = (
        "import pickle, sys; index = pickle.load(open(sys.argv[1], 'rb')); "
        "print(index.digest, list(index.ids), list(index.labels), index.frames_first.tolist(), "
        "index.strengths.values.tolist(), index.first(3).digest, index.video(5))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "index")], capture_output=True, text=True, check=True
    ).stdout
    assert index.strengths is not None
    expected = [index.digest, list(index.ids), list(index.labels), index.frames_first.tolist()]
    expected += [index.strengths.values.tolist(), index.first(3).digest, index.video(5)]
    assert printed == " ".join(map(str, expected)) + "\n"


def test_the_shared_file_goes_with_its_owner_and_with_nobody_else(index: ClipIndex, tmp_path: Path) -> None:
    program = (
        "import os, sys; import numpy as np; from pipeline_lib.clips.columns import SharedArrays\n"
        "shared = SharedArrays({'a': np.arange(9)})\n"
        "if os.fork() == 0: del shared; sys.exit()\n"
        "os.wait(); print(len(os.listdir(os.environ['TMPDIR'])), shared['a'].sum())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"TMPDIR": str(tmp_path)}
    ).stdout
    assert printed == "1 36\n" and not list(tmp_path.iterdir())

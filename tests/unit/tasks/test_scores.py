"""The score file: same bytes for the same content, and an interrupted one goes on."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from whole_scores import whole

from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.results import read_metrics, write_metrics
from pipeline_lib.tasks.classification.metrics import figures
from pipeline_lib.tasks.classification.scores import LabelledVideo, ScoreFile, ScoresPart, label_indices

CLASSES = ("air drumming", "abseiling", "çà et là")
VIDEOS = [
    LabelledVideo("-abc_000001_000011", "validation", ("abseiling",)),
    LabelledVideo("Xyz_000001_000011", "validation", ("çà et là", "air drumming")),
    LabelledVideo("zzz", "validation", ("abseiling",)),
]
RECORD = {"inputs": {"manifests/kinetics/summary.json": "0" * 64}, "digest": "1"}


def clips(seed: int, count: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return np.arange(count, dtype=np.int64) * 16, np.zeros(count, dtype=np.int8), logits


def make(path: Path, order: list[int]) -> None:
    with ScoresPart(path, "digest", 3) as part:
        for index in order:
            if VIDEOS[index].id not in part.done:
                part.append(VIDEOS[index].id, *clips(index, count=index + 1))
        part.finish(VIDEOS, CLASSES, RECORD)


def test_round_trip_and_order_does_not_matter(tmp_path: Path) -> None:
    make(tmp_path / "a.h5", [0, 1, 2])
    make(tmp_path / "b.h5", [2, 0, 1])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    scores = ScoreFile(tmp_path / "a.h5")
    assert list(scores.videos) == VIDEOS
    assert scores.classes == CLASSES
    assert label_indices(scores) == [[1], [2, 0], [1]]
    told = {name: scores.record[name] for name in ("content", "tables")}
    assert scores.record == RECORD | told | {"counts": {"videos": 3, "clips": 6, "classes": 3}}
    np.testing.assert_array_equal(whole(scores).logits[whole(scores).video == 2], clips(2, 3)[2])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_an_interrupted_evaluation_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "whole.h5", [0, 1, 2])
    path = tmp_path / "killed.h5"
    with ScoresPart(path, "digest", 3) as part:
        part.append(VIDEOS[0].id, *clips(0, 1))
        part.append(VIDEOS[1].id, *clips(1, 2))
    folder = tmp_path / ".killed.h5.part"
    # The kill fell between the logits and the journal's newline: both tails must go.
    with open(folder / "blob", "ab") as blob:
        blob.write(b"\x01\x02\x03\x04\x05")
    journal = (folder / "journal").read_bytes()
    (folder / "journal").write_bytes(journal + journal.splitlines(keepends=True)[0][:-9])
    with ScoresPart(path, "digest", 3) as part:
        assert part.resumed == 2
        assert part.done == {VIDEOS[0].id, VIDEOS[1].id}
    make(path, [2])
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_part_of_other_weights_is_not_resumed(tmp_path: Path) -> None:
    with ScoresPart(tmp_path / "a.h5", "digest", 3) as part:
        part.append("zzz", *clips(2))
    with ScoresPart(tmp_path / "a.h5", "another", 3) as part:
        assert part.resumed == 0
        assert part.done == set()


def test_a_journal_ahead_of_its_blob_is_cut(tmp_path: Path) -> None:
    with ScoresPart(tmp_path / "a.h5", "digest", 3) as part:
        part.append("a", *clips(0))
        part.append("b", *clips(1))
    blob = tmp_path / ".a.h5.part" / "blob"
    blob.write_bytes(blob.read_bytes()[:-1])
    with ScoresPart(tmp_path / "a.h5", "digest", 3) as part:
        assert part.done == {"a"}


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not hdf5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["offsets"] = [0]
    for name in ("text.h5", "other.h5", "absent.h5"):
        with pytest.raises(UserError, match=name):
            ScoreFile(tmp_path / name)


def test_metrics_carry_counts_and_the_manifest(tmp_path: Path) -> None:
    make(tmp_path / "a.h5", [0, 1, 2])
    run = {"experiment": "d3d", "split": 1, "seed": 0, "protocol": "ten_clips"}
    record = run | {"counts": {"listed": 5, "missing": 2}} | figures(tmp_path / "a.h5")
    write_metrics(tmp_path / "metrics.json", record)
    assert read_metrics(tmp_path / "metrics.json") == record
    assert (record["manifest"], record["num_videos"], record["num_clips"]) == ("0" * 64, 3, 6)
    assert record["counts"] == {"listed": 5, "missing": 2}
    assert [entry["class"] for entry in record["per_class"]] == list(CLASSES)
    with pytest.raises(UserError, match="evaluate"):
        read_metrics(tmp_path / "absent.json")

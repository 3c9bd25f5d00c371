"""Predicted classes as text, also of a list whose labels are not public."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import special
from small_tree import make_run, make_tree, training_specification
from whole_scores import whole

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.tables import write_table
from pipeline_lib.cli.evaluate import describe
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EvaluationSpecification
from pipeline_lib.evaluation.runner import evaluate
from pipeline_lib.tasks.classification.scores import ScoreFile


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of a list without labels."""
    layout = make_tree(tmp_path_factory.mktemp("predictions") / "output", num_videos=8)
    table = pd.read_parquet(layout.manifest("tiny"))
    asked = table["subset_1"] == "validation"
    table.loc[asked, "subset_1"] = "unlabelled"
    table["labels"] = [[] if without else labels for without, labels in zip(asked, table["labels"], strict=True)]
    write_table(layout.manifest("tiny"), pa.Table.from_pandas(table))
    training = training_specification("baseline")
    make_run(layout, training)
    place = layout.evaluation("baseline", "1", "0", "asked")
    protocol = Protocol(num_clips=2, subset="unlabelled")
    specification = EvaluationSpecification(training=training, protocol_name="asked", protocol=protocol)
    record = evaluate(specification, layout.root, place, 1)
    assert record["metrics"] == {}
    assert record["counts"]["evaluated"] == record["num_videos"] > 1
    assert "without labels" in describe(record)
    return place / "scores.h5"


def expected(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids and mean probabilities, by scipy."""
    found = ScoreFile(path)
    clips = whole(found)
    shares = special.softmax(clips.logits.astype(float), axis=1)
    return [video.id for video in found.videos], np.stack(
        [shares[clips.video == v].mean(0) for v in range(len(found.videos))]
    )


def test_the_csv_holds_the_most_probable_classes_of_each_video(scores: Path, tmp_path: Path) -> None:
    assert main(["predictions", str(scores), "--out", str(tmp_path / "all.csv"), "--top", "2"]) == 0
    ids, shares = expected(scores)
    classes = ScoreFile(scores).classes
    with open(tmp_path / "all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["rank"]) for row in rows] == [(id, rank) for id in ids for rank in ("1", "2")]
    for place, row in enumerate(rows):
        own = shares[place // 2]
        label = np.argsort(-own, kind="stable")[place % 2]
        assert row["class"] == classes[label]
        assert float(row["probability"]) == pytest.approx(own[label], abs=1e-6)


def test_somethings_form_is_that_of_its_own_lists(scores: Path, tmp_path: Path) -> None:
    assert main(["predictions", str(scores), "--out", str(tmp_path / "test.csv"), "--form", "something"]) == 0
    ids, shares = expected(scores)
    classes = ScoreFile(scores).classes
    with open(tmp_path / "test.csv", newline="") as file:
        assert [tuple(row) for row in csv.reader(file, delimiter=";")] == [
            (id, classes[own.argmax()]) for id, own in zip(ids, shares, strict=True)
        ]
    assert main(["predictions", str(scores), "--out", str(tmp_path / "x"), "--top", "0"]) == 2

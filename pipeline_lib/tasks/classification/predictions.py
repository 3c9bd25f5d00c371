"""Predicted classes as text files, for people and for servers that judge lists whose labels are not public."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline_lib.tasks.classification.metrics import mean_probabilities
from pipeline_lib.tasks.classification.scores import LabelledVideo, Scores


def predicted(scores: Scores, top: int) -> Iterator[tuple[LabelledVideo, list[tuple[str, float]]]]:
    """The most probable classes of each video with their probabilities, the first of equals first.

    Args:
        scores: of the videos.
        top: classes of each video.
    """
    for rows, probabilities in mean_probabilities(scores):
        for video, row in zip(scores.videos[rows], probabilities, strict=True):
            order = np.argsort(-row, kind="stable")[:top]
            yield video, [(scores.classes[label], float(row[label])) for label in order]


def write_csv(scores: Scores, path: Path, top: int) -> None:
    """Write ``id,rank,class,probability``, ``top`` lines a video; ranks count from 1."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "rank", "class", "probability"))
        for video, classes in predicted(scores, top):
            writer.writerows((video.id, rank, name, f"{share:.6f}") for rank, (name, share) in enumerate(classes, 1))


def write_something(scores: Scores, path: Path) -> None:
    """Write ``id;class``, a line a video: the form of the lists of Something-something v1, and of what is sent in.

    The server that judged the test list is no longer there; its format is that of ``…-v1-validation.csv``.
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";", quoting=csv.QUOTE_MINIMAL).writerows(
            (video.id, classes[0][0]) for video, classes in predicted(scores, 1)
        )

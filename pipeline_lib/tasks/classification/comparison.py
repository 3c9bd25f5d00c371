"""Compares two evaluations: paired difference with its interval, and the distance of student and teacher."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline_lib.errors import UserError
from pipeline_lib.tasks.classification.metrics import Evaluation, log_softmax
from pipeline_lib.tasks.classification.scores import Scores, label_indices, manifest_digest, pieces, same_clips
from pipeline_lib.tasks.results import Difference, bootstrap_mean


def _require_same_videos(first: Scores, second: Scores, names: tuple[str, str]) -> None:
    """Refuse two score files that do not judge the same videos.

    Raises:
        UserError: the manifests or the videos differ.
    """
    if manifest_digest(first) != manifest_digest(second):
        raise UserError(
            f"{names[0]} and {names[1]} were evaluated on different manifests "
            f"({manifest_digest(first)[:12] or 'unknown'} and {manifest_digest(second)[:12] or 'unknown'}): "
            "evaluate both on the same one."
        )
    if first.videos != second.videos:
        different = sorted(set(first.videos) ^ set(second.videos), key=lambda video: video.id)
        raise UserError(
            f"{names[0]} and {names[1]} do not hold the same videos: {len(first.videos)} and {len(second.videos)}, "
            f"the first that differs is {different[0].id}. A video that one stage rejected (see the shards' tables "
            "of rejects) must be left out of both."
        )


def paired_difference(
    first: Sequence[Scores], second: Sequence[Scores], names: tuple[str, str] = ("the first", "the second")
) -> Difference:
    """Video@1 of the first minus that of the second, paired by video (and by run if there are several seeds).

    The interval is over the videos: the differences of all pairs of runs are averaged for each video, then videos are
    drawn with replacement. It tells how the difference depends on which videos were evaluated.

    Args:
        first: score files of one experiment, one per run.
        second: those of the other, in the same order of runs.
        names: of the experiments, for messages.

    Raises:
        UserError: the files do not judge the same videos.
        ValueError: the numbers of runs differ or are zero.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} runs beside {len(second)}")
    rows = []
    for one, other in zip(first, second, strict=True):
        _require_same_videos(one, other, names)
        rows.append(Evaluation(one).correct.astype(float) - Evaluation(other).correct.astype(float))
    if len({len(row) for row in rows}) != 1:
        raise UserError(f"the runs of {names[0]} and {names[1]} judge different numbers of videos.")
    values = np.mean(rows, axis=0)
    low, high = bootstrap_mean(values)
    return Difference(float(values.mean()), low, high, len(values), len(rows))


@dataclass(frozen=True)
class ClassDifference:
    """One class in two evaluations: accuracies in [0, 1] and the paired difference of its videos."""

    name: str
    num_videos: int
    first: float
    second: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second."""
        return self.first - self.second


def per_class_differences(first: Scores, second: Scores) -> list[ClassDifference]:
    """Per-class accuracies of two evaluations of the same videos, sorted from the largest gain to the largest loss.

    Raises:
        UserError: the files do not judge the same videos.
    """
    _require_same_videos(first, second, ("the first", "the second"))
    one, other = Evaluation(first).predictions, Evaluation(second).predictions
    other_index = {name: position for position, name in enumerate(second.classes)}
    entries = []
    for label, name in enumerate(first.classes):
        rows = [row for row, labels in enumerate(label_indices(first)) if label in labels]
        if not rows or name not in other_index:
            continue
        a, b = (one[rows] == label).astype(float), (other[rows] == other_index[name]).astype(float)
        low, high = bootstrap_mean(a - b)
        entries.append(ClassDifference(name, len(rows), float(a.mean()), float(b.mean()), low, high))
    return sorted(entries, key=lambda entry: (-entry.difference, entry.name))


@dataclass(frozen=True)
class Distance:
    """The distance of a student from its teacher, over the clips of both.

    big_vision's ``evaluators/proj/distill/distance.py`` reports the same three numbers.

    Attributes:
        mse: mean squared difference of the logits over clips and classes (D3D, equation 2 as a mean).
        kl: mean KL(teacher ‖ student) of the softmax, nats.
        agreement: share of clips with the same most probable class.
        num_clips: clips compared.
    """

    mse: float
    kl: float
    agreement: float
    num_clips: int

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def student_teacher_distance(student: Scores, teacher: Scores) -> Distance:
    """Distance of two score files that hold the same clips of the same classes.

    Raises:
        UserError: manifests, videos, clips or classes differ.
    """
    _require_same_videos(student, teacher, ("the student", "the teacher"))
    if student.classes != teacher.classes:
        raise UserError("the student and the teacher have different classes.")
    if not same_clips(student, teacher):
        raise UserError("the student and the teacher were evaluated on different clips: use one protocol for both.")
    squared = divergence = 0.0
    agreeing = num_clips = 0
    for own, other in zip(pieces(student), pieces(teacher), strict=True):
        ours, theirs = own.logits.astype(np.float64), other.logits.astype(np.float64)
        log_ours, log_theirs = log_softmax(ours), log_softmax(theirs)
        squared += float(((ours - theirs) ** 2).sum())
        divergence += float((np.exp(log_theirs) * (log_theirs - log_ours)).sum())
        agreeing += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        num_clips += len(ours)
    return Distance(
        mse=squared / (num_clips * len(student.classes)),
        kl=divergence / num_clips,
        agreement=agreeing / num_clips,
        num_clips=num_clips,
    )

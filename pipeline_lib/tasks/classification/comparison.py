"""Compares two evaluations: difference with its interval, and the distance of student and teacher."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline_lib.errors import UserError
from pipeline_lib.tasks.classification.metrics import Evaluation, log_softmax
from pipeline_lib.tasks.classification.scores import Scores, of_common_videos, pieces, same_clips
from pipeline_lib.tasks.results import Difference, bootstrap_difference


def paired_difference(
    first: Sequence[Scores],
    second: Sequence[Scores],
    names: tuple[str, str] = ("the first", "the second"),
    paired: bool = True,
) -> Difference:
    """Video@1 of the first minus that of the second on the videos that all have: each the mean over its runs.

    The interval is over the videos and, where there are several, over the runs (``bootstrap_difference``).

    Args:
        first: score files of one experiment, one per run.
        second: those of the other.
        names: of the experiments, for messages.
        paired: run k of both has the same seed.

    Raises:
        UserError: the files are of different manifests, or have no video in common.
        ValueError: there are no runs, or paired ones differ in number.
    """
    if not first or not second or (paired and len(first) != len(second)):
        raise ValueError(f"{len(first)} runs beside {len(second)}")
    both = of_common_videos([*first, *second], [names[0]] * len(first) + [names[1]] * len(second))
    correct = np.stack([Evaluation(one).correct.astype(float) for one in both])
    ours, theirs = correct[: len(first)], correct[len(first) :]
    low, high = bootstrap_difference(ours, theirs, paired)
    mean = float(ours.mean() - theirs.mean())
    return Difference(mean, low, high, correct.shape[1], len(ours), len(theirs), paired)


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


def per_class_differences(
    first: Sequence[Scores], second: Sequence[Scores], paired: bool = True
) -> list[ClassDifference]:
    """Per-class accuracies of two experiments on the same videos, sorted from the largest gain to the largest loss.

    Each accuracy is the mean over the runs.

    Args:
        first: score files of one experiment, one per run.
        second: those of the other.
        paired: run k of both has the same seed.

    Raises:
        UserError: the files are of different manifests, or have no video in common.
    """
    both = of_common_videos([*first, *second], ["the first"] * len(first) + ["the second"] * len(second))
    # Predictions by the names of classes, because two networks may number them differently.
    predicted = np.stack([np.array(one.classes, dtype=object)[Evaluation(one).predictions] for one in both])
    labels = [set(video.labels) for video in both[0].videos]
    entries = []
    for name in both[0].classes:
        rows = [row for row, own in enumerate(labels) if name in own]
        if not rows or name not in both[-1].classes:
            continue
        hits = (predicted[:, rows] == name).astype(float)
        ours, theirs = hits[: len(first)], hits[len(first) :]
        low, high = bootstrap_difference(ours, theirs, paired)
        entries.append(ClassDifference(name, len(rows), float(ours.mean()), float(theirs.mean()), low, high))
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
        UserError: manifests, clips or classes differ, or no video is common.
    """
    student, teacher = of_common_videos([student, teacher], ("the student", "the teacher"))
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

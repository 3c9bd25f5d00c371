"""Figures of one evaluation, computed from its score file alone.

A video's score is the mean over its clips of their softmax (D3D, section 5.1; R(2+1)D, section 4: "Video@1 … averaging
clip predictions"). A video with several labels counts as correct when the prediction is one of them (Hit@k of
Sports-1M); mean class accuracy and the confusion matrix use each label of such a video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.scores import Scores

# Bins of the expected calibration error: 15 of equal width (Guo et al., On Calibration of Modern Neural Networks,
# ICML 2017, section 5).
NUM_CALIBRATION_BINS = 15

# Clips are taken in pieces of this many, so that 100 clips of 20,000 videos need no more memory than their logits.
ROWS_AT_A_TIME = 1 << 14


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithm of the softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    result: np.ndarray = np.exp(log_softmax(logits))
    return result


def hits(probabilities: np.ndarray, targets: Sequence[Sequence[int]], k: int) -> np.ndarray:
    """Whether one of the labels is among the k most probable classes.

    Ties are broken by the class order, so that the result does not depend on the sorting algorithm.

    Args:
        probabilities: (N, num_classes), or logits.
        targets: the label indices of each row.
        k: how many classes count; more than there are means all.

    Returns:
        bool (N,).
    """
    rows = np.repeat(np.arange(len(targets)), [len(labels) for labels in targets])
    indices = np.array([label for labels in targets for label in labels], dtype=np.int64)
    columns = np.arange(probabilities.shape[1])
    found = np.zeros(len(targets), dtype=bool)
    for first in range(0, len(rows), ROWS_AT_A_TIME):
        row, label = rows[first : first + ROWS_AT_A_TIME], indices[first : first + ROWS_AT_A_TIME]
        scores = probabilities[row]
        own = scores[np.arange(len(row)), label][:, None]
        ahead = (scores > own) | ((scores == own) & (columns < label[:, None]))
        found[row[ahead.sum(axis=1) < k]] = True
    return found


def wilson_interval(num_correct: int, num_trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion, within [0, 1]."""
    # Imported here: scipy.stats takes seconds to load, and most commands only read figures.
    from scipy.stats import binomtest

    interval = binomtest(num_correct, num_trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, num_bins: int) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their size, in [0, 1].

    Args:
        confidence: (N,) probability of the predicted class, in [0, 1].
        correct: bool (N,).
        num_bins: bins of equal width; bin m holds confidences in ((m − 1)/M, m/M] (Guo et al. 2017, equation 3).
    """
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    gaps = np.abs(
        np.bincount(bins, weights=correct.astype(float), minlength=num_bins)
        - np.bincount(bins, weights=confidence, minlength=num_bins)
    )
    return float(gaps.sum() / counts.sum())


@dataclass(frozen=True)
class ClassAccuracy:
    """One class: how many videos carry it, and how many of them are recognised as it."""

    name: str
    num_videos: int
    num_correct: int

    @property
    def accuracy(self) -> float | None:
        """Share of recognised videos; None when there is no video of the class."""
        return self.num_correct / self.num_videos if self.num_videos else None


class Evaluation:
    """The figures of one score file, computed when asked for.

    Args:
        scores: the score file.

    Raises:
        UserError: the file holds no video, or a video has no label.
    """

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        if not scores.videos:
            raise UserError("a score file without videos has no figures: no video of the subset was usable.")
        unlabelled = [video.id for video, labels in zip(scores.videos, scores.targets, strict=True) if not labels]
        if unlabelled:
            raise UserError(f"{len(unlabelled)} evaluated videos have no label, the first of them {unlabelled[0]}.")

    @cached_property
    def video_probabilities(self) -> np.ndarray:
        """Softmax averaged over each video's clips and crops, float64 (num_videos, num_classes)."""
        logits, video = self.scores.logits, self.scores.video
        total = np.zeros((len(self.scores.videos), len(self.scores.classes)))
        for first in range(0, len(video), ROWS_AT_A_TIME):
            piece = slice(first, first + ROWS_AT_A_TIME)
            np.add.at(total, video[piece], softmax(logits[piece]))
        counts = np.bincount(video, minlength=len(self.scores.videos))
        result: np.ndarray = total / counts[:, None]
        return result

    @cached_property
    def predictions(self) -> np.ndarray:
        """The most probable class of each video, int64 (num_videos,); the first of equals."""
        result: np.ndarray = self.video_probabilities.argmax(axis=1)
        return result

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each video's prediction is one of its labels, bool (num_videos,)."""
        return hits(self.video_probabilities, self.scores.targets, 1)

    @property
    def clip_top1(self) -> float:
        """Clip@1: share of clips whose own prediction is a label of their video."""
        targets = [self.scores.targets[row] for row in self.scores.video]
        return float(hits(self.scores.logits, targets, 1).mean())

    @property
    def video_top1(self) -> float:
        """Video@1: share of videos recognised from the mean of their clips."""
        return float(self.correct.mean())

    @property
    def video_top5(self) -> float:
        """Video@5: share of videos with a label among the five most probable classes."""
        return float(hits(self.video_probabilities, self.scores.targets, 5).mean())

    @cached_property
    def per_class(self) -> list[ClassAccuracy]:
        """One entry per class, in the order of the logits."""
        num_videos = np.zeros(len(self.scores.classes), dtype=int)
        num_correct = np.zeros(len(self.scores.classes), dtype=int)
        for labels, prediction in zip(self.scores.targets, self.predictions, strict=True):
            for label in labels:
                num_videos[label] += 1
                num_correct[label] += int(label == prediction)
        rows = zip(self.scores.classes, num_videos.tolist(), num_correct.tolist(), strict=True)
        return [ClassAccuracy(*row) for row in rows]

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the per-class accuracies over the classes that occur (balanced accuracy)."""
        return float(np.mean([entry.accuracy for entry in self.per_class if entry.accuracy is not None]))

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts int64 (num_classes, num_classes): row = label, column = prediction."""
        from sklearn.metrics import confusion_matrix

        labels = np.concatenate(self.scores.targets)
        predictions = np.repeat(self.predictions, [len(targets) for targets in self.scores.targets])
        matrix: np.ndarray = confusion_matrix(labels, predictions, labels=range(len(self.scores.classes)))
        return matrix

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the videos' most probable class, in [0, 1]."""
        confidence = np.minimum(self.video_probabilities.max(axis=1), 1.0)
        return expected_calibration_error(confidence, self.correct, NUM_CALIBRATION_BINS)

    @property
    def log_likelihood(self) -> float:
        """Mean negative log likelihood of the labels (nats; the best label where there are several)."""
        rows = zip(self.video_probabilities, self.scores.targets, strict=True)
        tiny = np.finfo(np.float64).tiny
        return float(np.mean([-np.log(max(row[labels].max(), tiny)) for row, labels in rows]))

    def summary(self) -> dict[str, Any]:
        """The figures as plain data for ``metrics.json``: shares in [0, 1], rounded to 6 decimals."""
        low, high = wilson_interval(int(self.correct.sum()), len(self.correct))
        figures = {
            "clip_top1": self.clip_top1,
            "video_top1": self.video_top1,
            "video_top1_interval_low": low,
            "video_top1_interval_high": high,
            "video_top5": self.video_top5,
            "mean_class_accuracy": self.mean_class_accuracy,
            "calibration_error": self.calibration_error,
            "negative_log_likelihood": self.log_likelihood,
        }
        return {name: round(value, 6) for name, value in figures.items()}

    def class_table(self) -> list[dict[str, Any]]:
        """Per-class accuracy as plain data."""
        return [
            {
                "class": entry.name,
                "num_videos": entry.num_videos,
                "num_correct": entry.num_correct,
                "accuracy": None if entry.accuracy is None else round(entry.accuracy, 6),
            }
            for entry in self.per_class
        ]

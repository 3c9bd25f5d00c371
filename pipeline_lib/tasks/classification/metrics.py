"""Figures of one evaluation, computed from its score file.

A video's score is the mean over its clips of their softmax (D3D, section 5.1; R(2+1)D, section 4: "Video@1 … averaging
clip predictions"). A video with several labels counts as correct when the prediction is one of them (Hit@k of
Sports-1M); mean class accuracy and the confusion matrix use each label of such a video.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.errors import UserError
from pipeline_lib.tasks.classification.scores import (
    CLIPS_AT_A_TIME,
    ScoreFile,
    Scores,
    label_indices,
    manifest_digest,
    pieces,
    video_pieces,
)

# Bins of the expected calibration error: 15 of equal width (Guo et al., On Calibration of Modern Neural Networks,
# ICML 2017, section 5).
NUM_CALIBRATION_BINS = 15


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithm of the softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    result: np.ndarray = np.exp(log_softmax(logits))
    return result


def hits(probabilities: np.ndarray, labels: Sequence[Sequence[int]], k: int) -> np.ndarray:
    """Whether one of the labels is among the k most probable classes.

    Ties are broken by the class order, so that the result does not depend on the sorting algorithm.

    Args:
        probabilities: (N, num_classes), or logits.
        labels: the label indices of each row.
        k: how many classes count; a number above the number of classes means all.

    Returns:
        bool (N,).
    """
    rows = np.repeat(np.arange(len(labels)), [len(row) for row in labels])
    indices = np.array([label for row in labels for label in row], dtype=np.int64)
    columns = np.arange(probabilities.shape[1])
    found = np.zeros(len(labels), dtype=bool)
    for first in range(0, len(rows), CLIPS_AT_A_TIME):
        row, label = rows[first : first + CLIPS_AT_A_TIME], indices[first : first + CLIPS_AT_A_TIME]
        scores = probabilities[row]
        own = scores[np.arange(len(row)), label][:, None]
        ahead = (scores > own) | ((scores == own) & (columns < label[:, None]))
        found[row[ahead.sum(axis=1) < k]] = True
    return found


def wilson_interval(num_correct: int, num_trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion, within [0, 1]."""
    # Imported here, because scipy.stats takes seconds to load and most commands only read figures.
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
    """One class: how many videos have it as a label, and how many of them are recognised."""

    name: str
    num_videos: int
    num_correct: int

    @property
    def accuracy(self) -> float | None:
        """Share of recognised videos; None when there is no video of the class."""
        return self.num_correct / self.num_videos if self.num_videos else None


def mean_probabilities(scores: Scores) -> Iterator[tuple[slice, np.ndarray]]:
    """Softmax averaged over each video's clips and crops, float64 (N, num_classes), some videos at a time.

    Yields:
        The rows of the videos, and their probabilities.
    """
    for rows, clips in video_pieces(scores):
        total = np.zeros((rows.stop - rows.start, len(scores.classes)))
        np.add.at(total, clips.video - rows.start, softmax(clips.logits))
        total /= scores.counts[rows, None]
        yield rows, total


def figures(predictions: Path) -> dict[str, Any]:
    """The content of ``metrics.json`` for a score file: accuracies of clips, videos and classes, calibration, counts.

    Scores of an unlabelled list have counts alone.

    Raises:
        UserError: the file cannot be read, or holds no video.
    """
    scores = ScoreFile(predictions)
    # A list whose labels are not public is predicted for somebody else to judge.
    is_labelled = any(video.labels for video in scores.videos) or not scores.videos
    evaluation = Evaluation(scores) if is_labelled else None
    return {
        "manifest": manifest_digest(scores),
        "num_videos": len(scores.videos),
        "num_clips": int(scores.counts.sum()),
        "num_classes": len(scores.classes),
        "metrics": {} if evaluation is None else evaluation.summary(),
        "per_class": [] if evaluation is None else evaluation.class_table(),
        "provenance": dict(scores.record),
    }


class Evaluation:
    """The figures of some scores, from one pass over the clips that keeps a few numbers per video.

    Args:
        scores: of at least one video.

    Attributes:
        predictions: int64 (num_videos,), the most probable class of each video; the first of equals.
        correct: bool (num_videos,), whether that is one of the video's labels.
        among_five: bool (num_videos,), whether a label is among the five most probable classes.
        confidence: float64 (num_videos,), probability of the prediction, in [0, 1].
        losses: float64 (num_videos,), negative log likelihood of the label (nats; of the best one of several).

    Raises:
        UserError: there is no video, or a video has no label.
    """

    def __init__(self, scores: Scores) -> None:
        self.scores, self.labels = scores, label_indices(scores)
        if not scores.videos:
            raise UserError("a score file without videos has no figures: no video of the subset was usable.")
        unlabelled = [video.id for video, labels in zip(scores.videos, self.labels, strict=True) if not labels]
        if unlabelled:
            raise UserError(f"{len(unlabelled)} evaluated videos have no label, the first of them {unlabelled[0]}.")
        num_videos = len(scores.videos)
        self.predictions = np.zeros(num_videos, dtype=np.int64)
        self.correct, self.among_five = np.zeros((2, num_videos), dtype=bool)
        self.confidence, self.losses = np.zeros((2, num_videos))
        tiny = np.finfo(np.float64).tiny
        for rows, probabilities in mean_probabilities(scores):
            own = self.labels[rows]
            self.predictions[rows] = probabilities.argmax(axis=1)
            self.correct[rows], self.among_five[rows] = hits(probabilities, own, 1), hits(probabilities, own, 5)
            self.confidence[rows] = np.minimum(probabilities.max(axis=1), 1.0)
            best = [max(row[labels].max(), tiny) for row, labels in zip(probabilities, own, strict=True)]
            self.losses[rows] = -np.log(best)

    @property
    def clip_top1(self) -> float:
        """Clip@1: share of clips whose own prediction is a label of their video."""
        found = sum(
            int(hits(clips.logits, [self.labels[row] for row in clips.video.tolist()], 1).sum())
            for clips in pieces(self.scores)
        )
        return found / int(self.scores.counts.sum())

    @property
    def video_top1(self) -> float:
        """Video@1: share of videos recognised from the mean of their clips."""
        return float(self.correct.mean())

    @property
    def video_top5(self) -> float:
        """Video@5: share of videos with a label among the five most probable classes."""
        return float(self.among_five.mean())

    @cached_property
    def per_class(self) -> list[ClassAccuracy]:
        """One entry per class, in the order of the logits."""
        num_videos = np.zeros(len(self.scores.classes), dtype=int)
        num_correct = np.zeros(len(self.scores.classes), dtype=int)
        for labels, prediction in zip(self.labels, self.predictions, strict=True):
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

        labels = np.concatenate(self.labels)
        predictions = np.repeat(self.predictions, [len(row) for row in self.labels])
        matrix: np.ndarray = confusion_matrix(labels, predictions, labels=range(len(self.scores.classes)))
        return matrix

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the videos' most probable class, in [0, 1]."""
        return expected_calibration_error(self.confidence, self.correct, NUM_CALIBRATION_BINS)

    @property
    def log_likelihood(self) -> float:
        """Mean negative log likelihood of the labels (nats; the best label where there are several)."""
        return float(np.mean(self.losses))

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

"""How results are shown: an experiment's results over its runs, and what a task writes and draws about them."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from markupsafe import Markup

from pipeline_lib.configuration.specification import ReportedExperiment

NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class EvaluatedRun:
    """One evaluated run of an experiment under one protocol: ``metrics.json``, and the file of its predictions."""

    split: int
    seed: int
    metrics: Mapping[str, Any]
    predictions: Path

    def figure(self, name: str) -> float:
        """A figure of ``metrics.json``."""
        return float(self.metrics["metrics"][name])


@dataclass
class Result:
    """An experiment under one protocol, over its runs."""

    experiment: ReportedExperiment
    protocol: str
    runs: list[EvaluatedRun]

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.experiment.name

    @property
    def task(self) -> str:
        """The task by which the networks were judged."""
        return str(self.runs[0].metrics["task"])

    def mean(self, figure: str) -> float:
        """Mean of a figure over the runs."""
        return float(np.mean([run.figure(figure) for run in self.runs]))

    def spread(self, figure: str) -> float | None:
        """Sample standard deviation over the runs; None for a single one."""
        values = [run.figure(figure) for run in self.runs]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    @property
    def manifest(self) -> str:
        """Digest of the manifest behind the first run."""
        return str(self.runs[0].metrics["manifest"])

    @property
    def counts(self) -> dict[str, int]:
        """How many videos were listed, rejected, missing and evaluated, in the first run."""
        return dict(self.runs[0].metrics.get("counts", {}))


@dataclass(frozen=True)
class Column:
    """A figure of ``metrics.json`` as a column of the result table.

    Attributes:
        name: in ``metrics.json``; a share in [0, 1], shown in per cent.
        label: as the papers call it.
        interval: names of the figures that bound it in one run, or None.
        printed: whether papers print it.
        best_of: so many guesses count; with as many classes every video is right, and the figure says nothing.
    """

    name: str
    label: str
    interval: tuple[str, str] | None = None
    printed: bool = True
    best_of: int = 1

    def says_something(self, metrics: Mapping[str, Any]) -> bool:
        """Whether the figure of an evaluation can be less than 1."""
        return self.best_of < int(metrics.get("num_classes", self.best_of + 1))


@dataclass(frozen=True)
class Difference:
    """The mean over the runs of the first minus that of the second, with its bootstrap interval; shares in [−1, 1].

    ``num_first`` and ``num_second`` are the runs of each, ``paired`` says whether they have the same seeds.
    """

    mean: float
    low: float
    high: float
    num_videos: int
    num_first: int = 1
    num_second: int = 1
    paired: bool = True

    @property
    def over(self) -> str:
        """What the interval is over."""
        if self.num_first == self.num_second == 1:
            return "videos; one training run each"
        return (
            "training runs and videos"
            if min(self.num_first, self.num_second) > 1
            else (f"videos and the {max(self.num_first, self.num_second)} training runs of one; one run of the other")
        )

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Two files of predictions side by side: ``data`` for programs, ``text`` with that many details for people."""

    data: dict[str, Any]
    text: Callable[[int], str]


@dataclass(frozen=True)
class Mistake:
    """A video that a network does not recognise.

    Attributes:
        id: of the video.
        truth: what it shows.
        prediction: what the network takes it for.
        confidence: probability of that, in [0, 1].
        of_truth: probability of what it shows, in [0, 1].
    """

    id: str
    truth: str
    prediction: str
    confidence: float
    of_truth: float


@dataclass(frozen=True)
class Mistakes:
    """The most confident mistakes, how many there are in all, and of how many videos."""

    most_confident: list[Mistake]
    num_wrong: int
    num_videos: int


@dataclass(frozen=True)
class Section:
    """A part of the report: the anchor and the text of its link, and its HTML."""

    anchor: str
    title: str
    html: Markup


class Presentation(Protocol):
    """How the results of a task are shown.

    Attributes:
        columns: of the result table. The first one ranks and compares rows and stands at the top of the page.
    """

    columns: tuple[Column, ...]

    def legend(self, columns: Sequence[Column]) -> str:
        """What the columns that are shown mean, in a few sentences."""
        ...

    def describe(self, metrics: Mapping[str, Any]) -> str:
        """The figures of one evaluation in a line, for a log."""
        ...

    def difference(
        self, first: Sequence[Path], second: Sequence[Path], names: tuple[str, str], paired: bool
    ) -> Difference:
        """The difference of the first column between two experiments; each run has a file of predictions.

        ``paired``: run k of both has the same seed.

        Raises:
            UserError: the files do not judge the same videos.
        """
        ...

    def distance(self, student: Path, teacher: Path) -> dict[str, float]:
        """How far a student's predictions are from its teacher's: name → number, in the order of a table's columns.

        Raises:
            UserError: the files cannot be compared.
        """
        ...

    def comparison(self, first: Path, second: Path) -> Comparison:
        """Two files of predictions side by side.

        Raises:
            UserError: they do not judge the same videos.
        """
        ...

    def mistakes(self, predictions: Path, count: int) -> Mistakes:
        """The most confident mistakes of one run, at most ``count``."""
        ...

    def recognised(self, predictions: Path, ids: Sequence[str]) -> set[str]:
        """Which of these videos one run recognises."""
        ...

    def sections(self, results: Sequence[Result], pairs: Sequence[tuple[Result, Result]]) -> list[Section]:
        """What the report shows beside the table.

        Args:
            results: of this task, in the order of the report.
            pairs: whose differences the report shows; both judge the same videos.
        """
        ...


def load_presentation(task: str) -> Presentation:
    """The presentation of a task, by its name."""
    presentation: Presentation = importlib.import_module(presentation_module(task)).PRESENTATION
    return presentation


def presentation_module(task: str) -> str:
    """The module of a task's presentation, for the fingerprint of the report."""
    return f"pipeline_lib.tasks.{task}.presentation"


def signed(value: float) -> str:
    """A difference with one decimal and a true minus sign (−, not a hyphen)."""
    return f"{value:+.1f}".replace("-", "−")


def bootstrap_difference(
    first: np.ndarray,
    second: np.ndarray,
    paired: bool,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of mean(first) − mean(second) over training runs and videos together.

    In each resample runs and videos are drawn with replacement, independently of each other, as two crossed random
    factors (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007). One run stays as it is: nothing is
    known of how another would differ.

    Args:
        first: (R1, N) one figure per run and video.
        second: (R2, N) on the same videos.
        paired: run k of both has the same seed (R1 = R2), so that both are drawn together.
        num_resamples: bootstrap samples.
        confidence: level of the interval, in (0, 1).
        seed: of the generator; equal input gives an equal interval.
    """
    # Videos with equal columns are alike, so that memory is needed for the distinct columns alone.
    columns, counts = np.unique(np.concatenate([first, second]), axis=1, return_counts=True)
    random = np.random.default_rng(seed)
    num_videos = int(counts.sum())
    draws = random.multinomial(num_videos, counts / num_videos, size=num_resamples)
    accuracies = draws @ columns.T / num_videos
    ours, theirs = accuracies[:, : len(first)], accuracies[:, len(first) :]
    own = _run_weights(random, len(first), num_resamples)
    other = own if paired else _run_weights(random, len(second), num_resamples)
    means = (ours * own).sum(axis=1) - (theirs * other).sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _run_weights(random: np.random.Generator, num_runs: int, num_resamples: int) -> np.ndarray:
    """How often each run is drawn, as shares, (num_resamples, num_runs)."""
    if num_runs == 1:
        return np.ones((num_resamples, 1))
    weights: np.ndarray = random.multinomial(num_runs, [1 / num_runs] * num_runs, size=num_resamples) / num_runs
    return weights

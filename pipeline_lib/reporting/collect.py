"""Reads everything that a report shows from the small artefacts of its experiments."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.artefacts.layout import WEIGHTS, Layout
from pipeline_lib.artefacts.manifest_summary import read_summary
from pipeline_lib.artefacts.records import check_beside, read_header
from pipeline_lib.artefacts.sealing import damage_named
from pipeline_lib.artefacts.tables import read_table
from pipeline_lib.configuration.specification import ReportedExperiment, ReportSpecification
from pipeline_lib.evaluation.results import read_metrics
from pipeline_lib.plain_data import parse_json
from pipeline_lib.tasks.results import EvaluatedRun, Result

NUM_REJECTS_LISTED = 60


@dataclass(frozen=True)
class Curve:
    """The log of one training run: steps, and a value per step of each named quantity (NaN where not logged)."""

    label: str
    steps: np.ndarray
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Retrieval:
    """The nearest-neighbour figures of an experiment's features, over its runs."""

    experiment: ReportedExperiment
    records: list[Mapping[str, Any]]

    def mean(self, figure: str) -> float:
        """Mean of a figure over the runs."""
        return float(np.mean([record["metrics"][figure] for record in self.records]))


@dataclass
class DatasetSummary:
    """A data set as its manifest has it."""

    name: str
    digest: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    """Per list (``train``, ``validation``): accepted, rejected, missing."""
    reasons: list[tuple[str, str, int]]
    """Status, reason and count of every kind of unusable video."""
    rejects: list[tuple[str, str, str, str]]
    """Id, list, status and reason of the unusable videos, at most ``NUM_REJECTS_LISTED`` of them."""
    num_rejects: int


@dataclass
class Report:
    """A report's content before it becomes a page."""

    specification: ReportSpecification
    layout: Layout
    results: list[Result]
    curves: dict[str, list[Curve]]
    datasets: list[DatasetSummary]
    trainings: dict[str, dict[str, Any]]
    """``experiment/split-seed`` → metadata of the weights file."""
    retrievals: list[Retrieval] = field(default_factory=list)
    inputs: list[Path] = field(default_factory=list)
    """The files that were read."""

    def result(self, name: str, protocol: str | None = None) -> Result | None:
        """An experiment's result under a protocol (its first one when None)."""
        for result in self.results:
            if result.name == name and protocol in (None, result.protocol):
                return result
        return None


def read_curve(path: Path, label: str) -> Curve | None:
    """A training log, or None if there is none.

    Raises:
        DamageError: it is not the log that the weights beside it were written with.
    """
    if not path.is_file():
        return None
    with damage_named(path, "the training that writes it has not run"):
        content = path.read_bytes()
        check_beside(path.with_name(WEIGHTS), path, content)
        lines = [entry for entry in map(parse_json, content.decode().splitlines()) if "step" in entry]
    if not lines:
        return None
    names = sorted({name for entry in lines for name, value in entry.items() if isinstance(value, int | float)})
    values = {name: np.array([float(entry.get(name, np.nan)) for entry in lines]) for name in names if name != "step"}
    return Curve(label, np.array([entry["step"] for entry in lines], dtype=np.int64), values)


def _plain_reason(reason: str) -> str:
    """The part of a reason before its details, by which equal causes are counted together."""
    return reason.split(":")[0].strip() or "no reason recorded"


def read_dataset(layout: Layout, name: str, split: int = 1) -> DatasetSummary:
    """A data set's counts and its rejected videos, from its manifest.

    Raises:
        UserError: manifest or summary are missing.
    """
    summary = read_summary(layout.summary(name))
    maker = f"the manifest of {name} has to be built first"
    table = read_table(layout.manifest(name), ["id", f"subset_{split}", "status", "reason"], maker).to_pandas()
    subset = table[f"subset_{split}"]
    counts = {
        list_name: {
            status: int(((subset == list_name) & (table["status"] == status)).sum())
            for status in ("accepted", "rejected", "missing")
        }
        for list_name in dict.fromkeys(["train", "validation", *sorted(set(subset) - {""})])
    }
    unusable = table[table["status"] != "accepted"].sort_values("id")
    kinds = Counter(
        (str(status), _plain_reason(str(reason)))
        for status, reason in zip(unusable["status"], unusable["reason"], strict=True)
    )
    columns = (unusable["id"], subset[unusable.index], unusable["status"], unusable["reason"])
    rejects = [
        (str(id), str(where), str(status), str(reason)) for id, where, status, reason in zip(*columns, strict=True)
    ]
    return DatasetSummary(
        name,
        summary.digest,
        summary.classes,
        counts,
        sorted(((status, reason, count) for (status, reason), count in kinds.items()), key=lambda row: (-row[2], row)),
        rejects[:NUM_REJECTS_LISTED],
        len(rejects),
    )


def collect(specification: ReportSpecification, root: Path) -> Report:
    """Read what a report shows.

    Args:
        specification: which experiments.
        root: output root.

    Raises:
        UserError: an evaluation that the report needs is missing; the message says which.
    """
    layout = Layout(root)
    results: list[Result] = []
    curves: dict[str, list[Curve]] = {}
    trainings: dict[str, dict[str, Any]] = {}
    datasets: dict[str, DatasetSummary] = {}
    retrievals: list[Retrieval] = []
    inputs: list[Path] = []
    for experiment in specification.experiments:
        for protocol in experiment.protocols:
            runs = []
            for split in experiment.splits:
                for seed in experiment.seeds:
                    place = (experiment.name, str(split), str(seed), protocol)
                    inputs += [layout.scores(*place), layout.metrics(*place)]
                    runs.append(EvaluatedRun(split, seed, read_metrics(layout.metrics(*place)), layout.scores(*place)))
            # Predictions of a list without labels have no figures.
            if all(run.metrics["metrics"] for run in runs):
                results.append(Result(experiment, protocol, runs))
        if experiment.retrieval is not None:
            places = [
                layout.retrieval(experiment.name, str(split), str(seed), experiment.retrieval)
                for split in experiment.splits
                for seed in experiment.seeds
            ]
            inputs += places
            retrievals.append(Retrieval(experiment, [read_metrics(place, "recall_at_1") for place in places]))
        if experiment.dataset not in datasets:
            inputs += [layout.summary(experiment.dataset), layout.manifest(experiment.dataset)]
            datasets[experiment.dataset] = read_dataset(layout, experiment.dataset)
        if experiment.members:
            continue
        for split in experiment.splits:
            for seed in experiment.seeds:
                training = (experiment.name, str(split), str(seed))
                log, weights = layout.training_log(*training), layout.weights(*training)
                several = len(experiment.splits) * len(experiment.seeds) > 1
                curve = read_curve(log, f"{split}-{seed}" if several else "")
                if curve is not None:
                    inputs.append(log)
                    curves.setdefault(experiment.name, []).append(curve)
                if weights.is_file():
                    inputs.append(weights)
                    trainings[f"{experiment.name}/{split}-{seed}"] = read_header(weights)
    return Report(specification, layout, results, curves, list(datasets.values()), trainings, retrievals, inputs)

"""The result table: our figures beside the paper's, with marks where they cannot be compared directly."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline_lib.configuration.experiments import RANDOM
from pipeline_lib.configuration.specification import ReportedExperiment
from pipeline_lib.reporting.collect import Report
from pipeline_lib.reporting.compare import Comparison
from pipeline_lib.tasks.results import Column, Result, load_presentation
from pipeline_lib.text_table import text_table

INFLATED_FAMILIES = ("i3d", "s3d", "i2d")
"""Parts of the names of networks that the papers initialise from ImageNet."""

MODALITIES = {"rgb": "RGB", "flow": "Flow"}


@dataclass(frozen=True)
class Row:
    """One line of the result table; shares are in per cent."""

    name: str
    description: str
    modality: str
    network: str
    figures: dict[str, float]
    spread: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    """Interval of a figure in one run, per cent, if the task has one."""
    num_runs: int
    num_videos: int
    num_listed: int
    paper_source: str
    paper: dict[str, float]
    marks: list[str]
    """Marks at the paper's number: what differs from the paper."""
    manifest_marks: list[str]
    """Marks at the row's name: it judges other videos than the first row."""
    best: bool = False
    paper_lines: list[str] = field(default_factory=list)
    """The paper's further figures, with their names."""

    @property
    def compared(self) -> str | None:
        """The figure that is compared with the paper's: the first one that the paper prints."""
        return next(iter(self.paper), None)


@dataclass(frozen=True)
class Table:
    """The rows of one data set under one protocol."""

    dataset: str
    protocol: str
    columns: tuple[Column, ...]
    manifests: list[str]
    rows: list[Row]
    notes: list[tuple[str, str]] = field(default_factory=list)
    """Mark and what it means."""

    @property
    def labels(self) -> dict[str, str]:
        """Name of each figure → its label."""
        return {column.name: column.label for column in self.columns}

    @property
    def has_paper(self) -> bool:
        """Whether any row has a number of a paper beside it."""
        return any(row.paper for row in self.rows)


def modality_label(modality: str) -> str:
    """``rgb+flow`` → ``RGB + Flow``."""
    return " + ".join(MODALITIES.get(part, part) for part in modality.split("+"))


def paper_of(experiment: ReportedExperiment, protocol: str) -> dict[str, Any]:
    """What the paper prints for an experiment under a protocol.

    Plain numbers belong to the experiment's first protocol; those of another protocol stand under its name.
    """
    named = experiment.paper.get(protocol)
    if isinstance(named, dict):
        return named
    return experiment.paper if protocol == experiment.protocols[0] else {}


def paper_numbers(paper: dict[str, Any], columns: Sequence[Column]) -> dict[str, float]:
    """The paper's figures, per cent, by the names of ``metrics.json``."""
    names = [column.name for column in columns if column.printed]
    return {name: float(paper[name]) for name in names if isinstance(paper.get(name), int | float)}


def _differences_from_paper(result: Result, trainings: dict[str, dict[str, Any]]) -> list[str]:
    """What differs from the paper: what the experiment says itself, and what its artefacts show."""
    stated = result.experiment.paper.get("differs", [])
    reasons = [stated] if isinstance(stated, str) else [str(reason) for reason in stated]
    counts = result.counts
    unusable = counts.get("listed", 0) - counts.get("evaluated", 0)
    if unusable > 0:
        reasons.append(f"{unusable} of {counts['listed']} listed videos could not be evaluated")
    run = result.runs[0]
    metadata = trainings.get(f"{result.name}/{run.split}-{run.seed}", {})
    specification = metadata.get("specification", {})
    network = specification.get("model", {}).get("name", "")
    # I3D, S3D-G and D3D start from Inception-v1 trained on ImageNet (S3D-G, Table 4); R(2+1)D starts at random.
    if any(family in network for family in INFLATED_FAMILIES) and specification.get("start", RANDOM) == RANDOM:
        reasons.append("random initialisation, where the paper starts from inflated ImageNet weights")
    planned, steps = result.experiment.paper.get("steps"), specification.get("recipe", {}).get("steps")
    if planned is not None and steps is not None and steps != planned:
        reasons.append(f"{steps} steps instead of {planned}")
    return reasons


def result_tables(report: Report) -> list[Table]:
    """One table per data set and protocol, its rows in the order of the specification."""
    tables = []
    places = dict.fromkeys((result.task, result.experiment.dataset, result.protocol) for result in report.results)
    for task, dataset, protocol in places:
        columns = load_presentation(task).columns
        headline, names = columns[0].name, {column.name: column.label for column in columns}
        chosen = [r for r in report.results if (r.task, r.experiment.dataset, r.protocol) == (task, dataset, protocol)]
        manifests = list(dict.fromkeys(run.metrics["manifest"] for result in chosen for run in result.runs))
        notes: dict[str, str] = {}
        rows = []
        # Only rows of one manifest are ranked; rows of another one are marked.
        comparable = [r for r in chosen if all(run.metrics["manifest"] == manifests[0] for run in r.runs)]
        highest = max((result.mean(headline) for result in comparable), default=None)
        for result in chosen:
            marks = []
            printed = paper_of(result.experiment, result.protocol)
            paper = paper_numbers(printed, columns)
            reasons = _differences_from_paper(result, report.trainings) if paper else []
            if reasons:
                text = "Differs from the paper: " + "; ".join(reasons) + "."
                mark = next((mark for mark, other in notes.items() if other == text), f"{len(notes) + 1}")
                notes[mark] = text
                marks.append(mark)
            manifest_marks = []
            for position in sorted({manifests.index(run.metrics["manifest"]) for run in result.runs} - {0}):
                mark = f"m{position}"
                notes[mark] = (
                    f"Evaluated on another manifest ({manifests[position][:12]}) than the first row "
                    f"({manifests[0][:12]}): these rows judge different videos."
                )
                manifest_marks.append(mark)
            first = result.runs[0].metrics["metrics"]
            rows.append(
                Row(
                    name=result.name,
                    description=result.experiment.description,
                    modality=modality_label(result.experiment.modality),
                    network=result.experiment.model or f"{len(result.experiment.members)} networks",
                    figures={name: 100 * result.mean(name) for name in names},
                    spread={name: _per_cent(result.spread(name)) for name in names},
                    intervals={
                        column.name: (100 * first[column.interval[0]], 100 * first[column.interval[1]])
                        for column in columns
                        if column.interval is not None
                    },
                    num_runs=len(result.runs),
                    num_videos=int(result.runs[0].metrics["num_videos"]),
                    num_listed=result.counts.get("listed", 0),
                    paper_source=str(printed.get("table", "")),
                    paper=paper,
                    marks=marks,
                    manifest_marks=manifest_marks,
                    best=len(comparable) > 1 and result in comparable and result.mean(headline) == highest,
                    paper_lines=[f"{names[name]} {value:.1f}" for name, value in list(paper.items())[1:]],
                )
            )
        tables.append(Table(dataset, protocol, columns, manifests, rows, list(notes.items())))
    return tables


def _per_cent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def results_text(report: Report) -> str:
    """The result tables for a terminal."""
    parts = []
    for table in result_tables(report):
        columns = [column for column in table.columns if column.printed]
        header = ["experiment", "input", *(column.label for column in columns), "videos"]
        if table.has_paper:
            header.append("paper")
        rows = []
        for row in table.rows:
            cells = [row.name + "".join(f" [{mark}]" for mark in row.manifest_marks), row.modality]
            for column in columns:
                spread = row.spread[column.name]
                cells.append(f"{row.figures[column.name]:.1f}" + (f" ± {spread:.1f}" if spread is not None else ""))
            cells.append(str(row.num_videos))
            if table.has_paper:
                number = "" if row.compared is None else f"{row.paper[row.compared]:.1f}"
                named = "" if row.compared in (None, columns[0].name) else f"{table.labels[row.compared or '']} "
                cells.append(named + number + ("".join(f" [{mark}]" for mark in row.marks) if number else ""))
            rows.append(cells)
        manifests = ", ".join(manifest[:12] for manifest in table.manifests)
        plural = "s" if len(table.manifests) > 1 else ""
        title = f"{table.dataset}, protocol {table.protocol} (per cent; manifest{plural} {manifests})"
        notes = [f"[{mark}] {text}" for mark, text in table.notes]
        parts.append("\n".join([title, text_table(header, rows, left=(0, 1)), *notes]))
    return "\n\n".join(parts)


def differences_text(comparisons: Sequence[Comparison]) -> str:
    """The differences with their intervals for a terminal; empty if there are none."""
    lines = []
    for entry in comparisons:
        if entry.difference is None:
            lines.append(f"{entry.label} ({entry.first.protocol}): {entry.problem}")
            continue
        mean, low, high = (100 * v for v in (entry.difference.mean, entry.difference.low, entry.difference.high))
        lines.append(
            f"{entry.label} ({entry.first.protocol}): {mean:+.1f} points, 95 % interval {low:+.1f} … {high:+.1f} "
            f"over {entry.difference.num_videos} videos: {entry.verdict}"
        )
    return "\n".join(lines)

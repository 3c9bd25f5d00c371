"""The result table: our figures beside the paper's, with marks where they cannot be compared directly."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline_lib.configuration.specification import PrintedNumbers, ReportedExperiment
from pipeline_lib.reporting.collect import Report
from pipeline_lib.reporting.compare import Comparison
from pipeline_lib.tasks.results import Column, Result, load_presentation
from pipeline_lib.text_table import text_table

MODALITIES = {"rgb": "RGB", "flow": "Flow"}


@dataclass(frozen=True)
class Row:
    """One line of the result table; shares are in per cent."""

    name: str
    description: str
    modality: str
    network: str
    start: str
    """The weights that its training starts from; empty for an ensemble."""
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

    task: str
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


def printed_for(experiment: ReportedExperiment, protocol: str) -> list[PrintedNumbers]:
    """What the papers print for an experiment under a protocol; the first is compared."""
    return [one for one in experiment.printed if one.protocol == protocol]


def differences_from_paper(result: Result, printed: PrintedNumbers | None) -> list[str]:
    """What a result differs in from the paper's: as its table says, as it is configured, and in its videos."""
    reasons = [*([printed.differs] if printed is not None and printed.differs else []), *result.experiment.differs]
    counts = result.counts
    unusable = counts.get("listed", 0) - counts.get("evaluated", 0)
    if unusable > 0:
        later = counts.get("rejected_later", 0)
        when = f", {later} of them found by frames or motion" if later > 0 else ""
        reasons.append(f"{unusable} of {counts['listed']} listed videos could not be evaluated{when}")
    return reasons


class Marks:
    """Marks for differences; equal differences share one.

    Attributes:
        notes: mark → what it means.
    """

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def mark(self, reasons: Sequence[str]) -> list[str]:
        """The mark of these differences; none without differences."""
        if not reasons:
            return []
        text = "Differs from the paper: " + "; ".join(reasons) + "."
        mark = next((mark for mark, other in self.notes.items() if other == text), f"{len(self.notes) + 1}")
        self.notes[mark] = text
        return [mark]


def result_tables(report: Report) -> list[Table]:
    """One table per data set and protocol, its rows in the order of the specification."""
    tables = []
    places = dict.fromkeys((result.task, result.experiment.dataset, result.protocol) for result in report.results)
    for task, dataset, protocol in places:
        chosen = [r for r in report.results if (r.task, r.experiment.dataset, r.protocol) == (task, dataset, protocol)]
        columns = _shown_columns(load_presentation(task).columns, chosen)
        headline, names = columns[0].name, {column.name: column.label for column in columns}
        manifests = list(dict.fromkeys(run.metrics["manifest"] for result in chosen for run in result.runs))
        marked, notes = Marks(), {}
        rows = []
        # Only rows of one manifest are ranked; rows of another one are marked.
        comparable = [r for r in chosen if all(run.metrics["manifest"] == manifests[0] for run in r.runs)]
        highest = max((result.mean(headline) for result in comparable), default=None)
        for result in chosen:
            printed = printed_for(result.experiment, result.protocol)
            judged = [one for one in printed if any(column.name in one.figures for column in columns)]
            paper = {c.name: judged[0].figures[c.name] for c in columns if judged and c.name in judged[0].figures}
            marks = marked.mark(differences_from_paper(result, judged[0])) if judged else []
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
                    start=result.experiment.start or "",
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
                    paper_source=judged[0].source if judged else "",
                    paper=paper,
                    marks=marks,
                    manifest_marks=manifest_marks,
                    best=len(comparable) > 1 and result in comparable and result.mean(headline) == highest,
                    paper_lines=[
                        *(f"{names[name]} {value:.1f}" for name, value in list(paper.items())[1:]),
                        *(_also(one, names) for one in judged[1:] if one.figures != judged[0].figures),
                    ],
                )
            )
        tables.append(Table(task, dataset, protocol, columns, manifests, rows, [*marked.notes.items(), *notes.items()]))
    return tables


def _shown_columns(columns: Sequence[Column], results: Sequence[Result]) -> tuple[Column, ...]:
    """The columns that say something of some result, or that a paper prints a number for."""
    printed = {
        name for one in results for numbers in printed_for(one.experiment, one.protocol) for name in numbers.figures
    }
    metrics = [run.metrics for result in results for run in result.runs]
    return tuple(
        column for column in columns if column.name in printed or any(column.says_something(one) for one in metrics)
    )


def _also(printed: PrintedNumbers, labels: dict[str, str]) -> str:
    """What another table prints."""
    figures = ", ".join(f"{labels[name]} {value:.1f}" for name, value in printed.figures.items() if name in labels)
    return f"{printed.source}: {figures}"


def _per_cent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def results_text(report: Report) -> str:
    """The result tables for a terminal."""
    parts = []
    for table in result_tables(report):
        columns = [column for column in table.columns if column.printed]
        starts = ["start"] if any(row.start for row in table.rows) else []
        header = ["experiment", "input", *starts, *(column.label for column in columns), "videos"]
        if table.has_paper:
            header.append("paper")
        rows = []
        for row in table.rows:
            cells = [
                row.name + "".join(f" [{mark}]" for mark in row.manifest_marks),
                row.modality,
                *([row.start.partition(" (")[0] or "–"] if starts else []),
            ]
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
        parts.append("\n".join([title, text_table(header, rows, left=range(2 + len(starts))), *notes]))
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
            f"over {entry.difference.over} ({entry.difference.num_videos} videos): {entry.verdict}"
        )
    return "\n".join(lines)

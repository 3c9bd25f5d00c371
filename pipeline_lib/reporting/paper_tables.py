"""A paper's table as the paper prints it, ours beside each number."""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from pipeline_lib.configuration.specification import ReportedExperiment
from pipeline_lib.configuration.tables import FIGURES, Cell, PaperTable, TableRow
from pipeline_lib.reporting.collect import Report
from pipeline_lib.reporting.tables import Marks, differences_from_paper
from pipeline_lib.tasks.results import Result, load_presentation, signed
from pipeline_lib.text_table import text_table

NONE = "–"


@dataclass(frozen=True)
class PaperCell:
    """One number; texts are empty where there is nothing to say."""

    printed: str = ""
    ours: str = ""
    difference: str = ""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperLine:
    """One row."""

    label: str
    experiments: str
    """Ours, or why there is none."""
    has_ours: bool
    cells: list[PaperCell]


@dataclass
class PaperView:
    """A table, ready to be shown."""

    source: str
    description: str
    heads: list[str]
    lines: list[PaperLine]
    notes: list[tuple[str, str]] = field(default_factory=list)
    """Mark and what it means."""


@lru_cache(maxsize=256)
def _counted(name: str, options: str, num_frames: int, side: int, num_classes: int, modality: str) -> dict[str, float]:
    # Imported by name: an edit to a network is no edit to the report, which is made again with the network's weights.
    complexity = importlib.import_module("pipeline_lib.models.complexity")
    found = complexity.count(
        name,
        num_frames,
        side,
        num_classes=num_classes,
        in_channels=2 if modality == "flow" else 3,
        counting="weights",
        options=json.loads(options),
    )
    return {"parameters_m": found.parameters / 1e6, "gmacs": found.gmacs}


def _of_network(experiment: ReportedExperiment, num_classes: int) -> dict[str, float]:
    """Size and cost of an experiment's network on one clip; empty for an ensemble."""
    if experiment.network is None or experiment.clip is None:
        return {}
    options = json.dumps(experiment.network.options, sort_keys=True)
    return _counted(experiment.network.name, options, *experiment.clip, num_classes, experiment.modality)


def _measured(report: Report, cell: Cell, figure: str) -> tuple[float, float | None, Result | None] | None:
    """Our value in the unit of the paper, its spread over runs, and the result that it is from."""
    experiment = next((one for one in report.specification.experiments if one.name == cell.experiment), None)
    if experiment is None:
        return None
    result = report.result(experiment.name, cell.protocol)
    if figure in ("parameters_m", "gmacs"):
        num_classes = next((len(one.classes) for one in report.datasets if one.name == experiment.dataset), 400)
        value = _of_network(experiment, num_classes).get(figure)
        return None if value is None else (value, None, result)
    if result is None or figure not in {column.name for column in load_presentation(result.task).columns}:
        return None
    spread = result.spread(figure)
    return 100 * result.mean(figure), None if spread is None else 100 * spread, result


def _decimals(value: float) -> int:
    return min(2, max(1, len(f"{value:g}".partition(".")[2])))


def _cell(report: Report, cell: Cell, figure: str, marks: Callable[[Result, TableRow], list[str]]) -> PaperCell:
    places = 1 if cell.printed is None else _decimals(cell.printed)
    printed = NONE if cell.printed is None else f"{cell.printed:.{places}f}"
    found = _measured(report, cell, figure)
    if found is None:
        return PaperCell(printed)
    value, spread, result = found
    ours = f"{value:.{places}f}" + ("" if spread is None else f" ± {spread:.{places}f}")
    difference = "" if cell.printed is None else signed(value - cell.printed)
    return PaperCell(printed, ours, difference, () if result is None else tuple(marks(result, cell.row)))


def paper_view(report: Report, table: PaperTable) -> PaperView:
    """A table with our numbers, as far as the report has them."""
    marked = Marks()

    def marks(result: Result, row: TableRow) -> list[str]:
        reasons = differences_from_paper(result, None)
        return marked.mark([*([row.differs] if row.differs else []), *reasons])

    lines = []
    for row in table.rows:
        cells = {cell.column: cell for cell in table.cells if cell.row is row}
        shown = [
            _cell(report, cells[name], column.figure, marks) if name in cells else PaperCell()
            for name, column in table.columns.items()
        ]
        lines.append(PaperLine(row.label, row.standing(), bool(row.ours), shown))
    heads = [_head(column.label, column.figure) for column in table.columns.values()]
    return PaperView(table.source, table.description, heads, lines, list(marked.notes.items()))


def _head(label: str, figure: str) -> str:
    unit = FIGURES[figure][0]
    return label if unit in label or unit == "%" else f"{label} ({unit})"


def paper_views(report: Report) -> list[PaperView]:
    """Every table that the report is asked for."""
    return [paper_view(report, table) for table in report.specification.tables.values()]


def paper_text(view: PaperView) -> str:
    """A table for a terminal: the paper's number, and ours behind a slash."""
    rows = []
    for line in view.lines:
        cells = []
        for cell in line.cells:
            ours = cell.ours + "".join(f" [{mark}]" for mark in cell.marks)
            cells.append(f"{cell.printed} / {ours}" if cell.ours else cell.printed)
        rows.append([line.label, *cells, line.experiments])
    title = f"{view.source}: {view.description} (the paper's / ours)"
    table = text_table(["", *view.heads, "ours"], rows, left=(0, len(view.heads) + 1))
    return "\n".join([title, table, *(f"[{mark}] {text}" for mark, text in view.notes)])

"""The tables and figures of the papers: what they print, and which of our experiments stands for each number."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import model_validator

from pipeline_lib.configuration.base import Section

Paper = Literal["D3D", "S3D-G", "R(2+1)D", "MoDist"]

FIGURES: dict[str, tuple[str, str]] = {
    "video_top1": ("%", "top-1 over videos"),
    "video_top5": ("%", "top-5 over videos"),
    "clip_top1": ("%", "top-1 over clips"),
    "parameters_m": ("M", "parameters"),
    "gmacs": ("G", "multiply-adds of one clip"),
    "training_hours": ("h", "hours of training"),
    "end_point_error": ("px", "end-point error of flow"),
    "frame_map": ("%", "frame-mAP at IoU 0.5"),
    "video_map": ("%", "video-mAP at IoU 0.5"),
    "test_top1": ("%", "top-1 on a test list without public labels"),
    "classes_gained": ("", "classes that gain"),
    "classes_lost": ("", "classes that lose"),
}
"""Every figure that a table prints: its unit and what it is."""


class TableColumn(Section):
    """One column of figures."""

    label: str
    """As the paper heads it."""
    figure: str = "video_top1"
    """What its numbers are: a name of ``FIGURES``."""
    protocol: str | None = None
    """Protocol under which ours are evaluated; null is the row's."""


class TableRow(Section):
    """One line: what the paper prints, and the experiment that repeats it."""

    label: str
    """As the paper calls it."""
    printed: dict[str, float] = {}
    """Column → number. A column is left out where the paper prints none."""
    experiment: str | None = None
    """Ours, in every column; null where ``experiments`` names them or nothing of ours stands for the row."""
    experiments: dict[str, str] = {}
    """Column → ours, where columns are of different experiments."""
    protocol: str | None = None
    """Protocol of ours; null is the experiment's first."""
    quoted: str | None = None
    """Whose number it is, if the paper only quotes it: nothing of ours stands for it."""
    not_yet: str | None = None
    """What is missing here to run it."""
    differs: str | None = None
    """Where our experiment is known not to be the paper's."""

    @property
    def ours(self) -> list[str]:
        """Our experiments of the row, each once."""
        return list(dict.fromkeys([*([self.experiment] if self.experiment else []), *self.experiments.values()]))

    def standing(self) -> str:
        """Our experiments, or why there are none."""
        if self.ours:
            return ", ".join(self.ours)
        return f"quoted: {self.quoted}" if self.quoted else f"not yet: {self.not_yet}"


class Cell(NamedTuple):
    """One number of a table."""

    row: TableRow
    column: str
    printed: float | None
    experiment: str | None
    protocol: str | None
    """None is the experiment's first."""


class PaperTable(Section):
    """A table or a figure of a paper, and the target that makes ours."""

    paper: Paper
    number: str
    """``Table 2``, ``Figure 4``; with the supplement's, ``Supplement, Figure 1``."""
    description: str
    """What it shows, in our words."""
    columns: dict[str, TableColumn]
    rows: list[TableRow]
    compare: list[tuple[str, str]] = []
    """Pairs of experiments whose difference the report shows; empty takes each student against its baselines."""
    notes: list[str] = []
    """Sentences under the title: what the paper leaves open, and what was taken."""

    @property
    def source(self) -> str:
        """``D3D, Table 2``."""
        return f"{self.paper}, {self.number}"

    @property
    def cells(self) -> Iterator[Cell]:
        """Its cells that have a number or an experiment, row by row."""
        for row in self.rows:
            for name, column in self.columns.items():
                experiment = row.experiments.get(name, row.experiment)
                printed = row.printed.get(name)
                if printed is not None or experiment is not None:
                    yield Cell(row, name, printed, experiment, column.protocol or row.protocol)

    @property
    def experiments(self) -> list[str]:
        """Our experiments, each once, in the order of the rows."""
        return list(dict.fromkeys(cell.experiment for cell in self.cells if cell.experiment is not None))

    @model_validator(mode="after")
    def _columns_exist(self) -> "PaperTable":
        for name, column in self.columns.items():
            if column.figure not in FIGURES:
                raise ValueError(
                    f"columns: {name}: there is no figure {column.figure!r}; known are {', '.join(FIGURES)}"
                )
        for row in self.rows:
            unknown = sorted({*row.printed, *row.experiments} - set(self.columns))
            if unknown:
                raise ValueError(f"rows: {row.label}: there is no column {unknown[0]!r}")
            if row.ours and (row.quoted or row.not_yet):
                raise ValueError(f"rows: {row.label}: it has an experiment, so it is neither `quoted` nor `not_yet`")
            if not (row.ours or row.quoted or row.not_yet):
                raise ValueError(
                    f"rows: {row.label}: give its experiment, or say whom the paper quotes, or what is missing"
                )
        return self

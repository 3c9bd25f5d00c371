"""What the experiments of a report cost: hours, processors or GPUs, and memory, from the sidecars of their artefacts.

These figures differ from machine to machine and from day to day, and the page does not. So they are never part of the
page: the terminal shows them, and a small page beside the report (``{target}.cost.html``), which is no artefact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from pipeline_lib.artefacts.stage import read_sidecar
from pipeline_lib.reporting.collect import Report
from pipeline_lib.text_table import text_table

SHAPES_NO_ARTEFACT = True

DATA_FILES = ("costs.html.j2",)

COSTS_SUFFIX = ".cost.html"

HEADER = ("experiment", "runs", "training", "on", "cost", "memory", "validation", "evaluation")


@dataclass(frozen=True)
class Cost:
    """What the runs of one experiment took; None where no sidecar says it.

    Attributes:
        name: of the experiment.
        num_runs: trainings whose sidecar is there.
        num_listed: trainings that the report shows; 0 of an ensemble.
        seconds: of one training, wall time, the mean over the runs.
        machine: what a training ran on: ``1 × NVIDIA H100``, ``2 CPU threads``.
        hours: of one GPU or one processor core, all runs together.
        unit: ``GPU h`` or ``core h``.
        gigabytes: the most memory that a training's first process held, GiB: a GPU's, or without one the machine's.
        validation: share of the time that went into judging the validation list, in [0, 1].
        evaluation_seconds: all evaluations together, wall time.
    """

    name: str
    num_runs: int
    num_listed: int
    seconds: float | None
    machine: str
    hours: float | None
    unit: str
    gigabytes: float | None
    validation: float | None
    evaluation_seconds: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table, in the order of ``HEADER``."""
        runs = str(self.num_runs) if self.num_runs == self.num_listed else f"{self.num_runs} of {self.num_listed}"
        return (
            self.name,
            runs if self.num_listed else "–",
            _duration(self.seconds),
            self.machine or "–",
            "–" if self.hours is None else f"{self.hours:.3g} {self.unit}",
            "–" if self.gigabytes is None else f"{self.gigabytes:.1f} GiB",
            "–" if self.validation is None else f"{100 * self.validation:.1f} %",
            _duration(self.evaluation_seconds),
        )


def _duration(seconds: float | None) -> str:
    """``45 s``, ``3:20 min``, ``12:05 h``."""
    if seconds is None:
        return "–"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def _machine(sidecar: dict[str, Any], specification: dict[str, Any]) -> tuple[str, int, str]:
    """What a training ran on, how many of it, and the unit of its cost."""
    figures = sidecar["figures"]
    processes = int(figures.get("processes", 1))
    if str(figures.get("device", "")).startswith("cuda"):
        return f"{processes} × {sidecar.get('gpu', 'GPU')}", processes, "GPU h"
    threads = processes * int(specification.get("hardware", {}).get("num_threads", 1))
    return f"{threads} CPU thread{'s' if threads > 1 else ''}", threads, "core h"


def _evaluation_seconds(report: Report, name: str) -> float | None:
    runs = [run for result in report.results if result.name == name for run in result.runs]
    found = [float(sidecar["seconds"]) for run in runs if "seconds" in (sidecar := read_sidecar(run.predictions))]
    return sum(found) if found else None


def costs(report: Report) -> list[Cost]:
    """What each experiment of a report took, in the report's order."""
    rows = []
    for experiment in report.specification.experiments:
        places = [] if experiment.members else [(s, k) for s in experiment.splits for k in experiment.seeds]
        sidecars, machines = [], []
        for split, seed in places:
            sidecar = read_sidecar(report.layout.weights(experiment.name, str(split), str(seed)))
            if sidecar.get("figures"):
                metadata = report.trainings.get(f"{experiment.name}/{split}-{seed}", {})
                sidecars.append(sidecar)
                machines.append(_machine(sidecar, metadata.get("specification", {})))
        # A sidecar from before the whole time was counted has that of its last process.
        seconds = [float(one["figures"].get("training_seconds", one["seconds"])) for one in sidecars]
        memory = [float(one["figures"]["peak_gigabytes"]) for one in sidecars if "peak_gigabytes" in one["figures"]]
        phases = [dict(one["figures"].get("seconds", {})) for one in sidecars]
        whole = sum(sum(one.values()) for one in phases)
        rows.append(
            Cost(
                name=experiment.name,
                num_runs=len(sidecars),
                num_listed=len(places),
                seconds=sum(seconds) / len(seconds) if seconds else None,
                machine=", ".join(dict.fromkeys(label for label, _, _ in machines)),
                hours=_hours(seconds, machines),
                unit=machines[0][2] if machines else "",
                gigabytes=max(memory, default=None),
                validation=sum(one.get("validation", 0.0) for one in phases) / whole if whole else None,
                evaluation_seconds=_evaluation_seconds(report, experiment.name),
            )
        )
    return rows


def _hours(seconds: Sequence[float], machines: Sequence[tuple[str, int, str]]) -> float | None:
    """Hours of one GPU or core; None if there is no run, or if some ran on a GPU and some without: these do not add."""
    if len({unit for _, _, unit in machines}) != 1:
        return None
    return sum(time * count for time, (_, count, _) in zip(seconds, machines, strict=True)) / 3600


def costs_text(report: Report) -> str:
    """The table for a terminal; empty if no sidecar is there."""
    rows = costs(report)
    if all(row.seconds is None and row.evaluation_seconds is None for row in rows):
        return ""
    table = text_table(HEADER, [row.cells for row in rows], left=(0, 3))
    return f"time (training: of one run), cost (of all runs) and memory, as measured\n{table}"


def costs_page(report: Report, style: str) -> str:
    """The table as a page of its own.

    Args:
        report: whose experiments are shown.
        style: the style sheet.
    """
    text = (resources.files(__package__) / DATA_FILES[0]).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.from_string(text).render(
        title=report.specification.title, header=HEADER, rows=[row.cells for row in costs(report)], style=style
    )


def costs_path(page: Path) -> Path:
    """Where the costs beside a report's page lie."""
    return page.with_suffix(COSTS_SUFFIX)

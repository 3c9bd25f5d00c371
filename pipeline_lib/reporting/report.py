"""The report stage: one self-contained HTML page from the small artefacts of some experiments.

Equal artefacts give equal bytes: no dates, hosts or random ids on the page.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.records import (
    LIBRARY_VERSION,
    Record,
    content_digest,
    distribution_versions,
    read_record,
)
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.artefacts.stages import REPORT
from pipeline_lib.configuration.specification import ReportSpecification
from pipeline_lib.evaluation.metrics import Evaluation
from pipeline_lib.evaluation.results import NUM_NEIGHBOURS
from pipeline_lib.reporting import figures
from pipeline_lib.reporting.collect import Report, Result, collect
from pipeline_lib.reporting.compare import Comparison, compare, teacher_distances
from pipeline_lib.reporting.flow_pictures import Gallery, colour_wheel_picture, galleries
from pipeline_lib.reporting.tables import FIGURES, result_tables, signed

DATA_FILES = ("page.html.j2", "page.css")
"""The page and its style sheet, beside this module; the fingerprint covers them."""

MAXIMUM_CONFUSION_CLASSES = 24
NUM_CONFUSED_PAIRS = 15
MAXIMUM_CLASS_ROWS = 40


def _cards(report: Report, comparisons: list[Comparison]) -> list[dict[str, str]]:
    """The figures that a reader wants first."""
    cards = []
    for entry in comparisons[:2]:
        if entry.difference is None:
            continue
        low, high = 100 * entry.difference.low, 100 * entry.difference.high
        cards.append(
            {
                "value": f"{signed(100 * entry.difference.mean)} points",
                "label": f"{entry.label}, Video@1 ({signed(low)} … {signed(high)})",
                "tone": {"better": "good", "worse": "bad"}.get(entry.verdict, ""),
            }
        )
    best = sorted(report.results, key=lambda result: -result.mean("video_top1"))[: 4 - len(cards)]
    cards += [
        {"value": f"{100 * result.mean('video_top1'):.1f} %", "label": f"{result.name}, Video@1", "tone": ""}
        for result in best
    ]
    return cards


def _class_tables(report: Report) -> list[dict[str, Any]]:
    """Accuracy per class and experiment, one table a data set and protocol; of many classes the most different."""
    tables = []
    places = dict.fromkeys((result.experiment.dataset, result.protocol) for result in report.results)
    for dataset, protocol in places:
        chosen = [r for r in report.results if (r.experiment.dataset, r.protocol) == (dataset, protocol)]
        by_class = [{entry["class"]: entry for entry in result.runs[0].metrics["per_class"]} for result in chosen]
        rows = []
        for name, entry in by_class[0].items():
            shares = [other.get(name, {}).get("accuracy") for other in by_class]
            if any(share is not None for share in shares):
                rows.append({"name": name, "num_videos": entry["num_videos"], "shares": shares})
        omitted = max(0, len(rows) - MAXIMUM_CLASS_ROWS)
        if omitted:

            def spread(row: dict[str, Any]) -> float:
                known = [share for share in row["shares"] if share is not None]
                return float(max(known) - min(known))

            kept = sorted(rows, key=lambda row: (-spread(row), row["name"]))[:MAXIMUM_CLASS_ROWS]
            rows = sorted(kept, key=lambda row: str(row["name"]))
        names = [result.name for result in chosen]
        tables.append({"dataset": dataset, "protocol": protocol, "names": names, "rows": rows, "omitted": omitted})
    return tables


def _confusion(result: Result) -> dict[str, Any]:
    """A confusion matrix, or of many classes the pairs that are confused most."""
    evaluation = Evaluation(result.runs[0].scores)
    matrix, classes = evaluation.confusion, evaluation.scores.classes
    several = f" ({result.runs[0].split}-{result.runs[0].seed})" if len(result.runs) > 1 else ""
    content: dict[str, Any] = {"name": result.name + several, "classes": classes, "rows": [], "pairs": []}
    totals = matrix.sum(axis=1)
    if len(classes) <= MAXIMUM_CONFUSION_CLASSES:
        for label, name in enumerate(classes):
            counts = matrix[label].tolist()
            cells = [{"count": count, "share": count / max(int(totals[label]), 1)} for count in counts]
            content["rows"].append({"name": name, "cells": cells})
        return content
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSED_PAIRS]
    for label, prediction in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[label, prediction]:
            content["pairs"].append(
                {
                    "label": classes[label],
                    "prediction": classes[prediction],
                    "count": int(wrong[label, prediction]),
                    "total": int(totals[label]),
                }
            )
    return content


def shown_artefacts(report: Report, shown: Sequence[Gallery]) -> list[Path]:
    """What the page is made from, and of the shards behind it one of each kind: the others were made as it was."""
    paths = [*report.inputs, *(path for gallery in shown for strip in gallery.strips for path in strip.shards)]
    for path in tuple(paths):
        record = read_record(path) or {}
        for pattern in (key for key in record.get("inputs", {}) if "*" in key):
            paths += sorted(report.layout.root.glob(pattern))[:1]
    return list(dict.fromkeys(paths))


def _origins(layout: Layout, paths: Sequence[Path]) -> tuple[list[tuple[str, str, str]], list[dict[str, Any]]]:
    """Versions of everything that made the artefacts, and the origin of each of them."""
    versions: dict[tuple[str, str], set[str]] = defaultdict(set)
    rows = []
    for path in paths:
        record = read_record(path) or {}
        if "digest" not in record or layout.carrier(path) is not None:
            continue
        stage = str(record.get("stage", "unknown"))
        for name, version in {**record.get("versions", {}), "python": record.get("python")}.items():
            if version:
                versions[name, str(version)].add(stage)
        rows.append(
            {
                "name": layout.key(path) or path.name,
                "digest": str(record["digest"]),
                "code": str(record.get("code", "")),
                "inputs": sorted((str(name), str(value)) for name, value in record.get("inputs", {}).items()),
            }
        )
    return [(*key, ", ".join(sorted(stages))) for key, stages in sorted(versions.items())], rows


def _data_file(name: str) -> str | None:
    """The text of one of the data files; None for another name."""
    return (resources.files(__package__) / name).read_text("utf-8") if name in DATA_FILES else None


def page(report: Report, shown: Sequence[Gallery] = (), record: Record | None = None) -> str:
    """The report as HTML.

    Args:
        report: what it shows.
        shown: pictures of motion.
        record: of the page, which it carries where no reader sees it.
    """
    comparisons = compare(report)
    versions, origins = _origins(report.layout, shown_artefacts(report, shown))
    num_classes = {dataset.name: len(dataset.classes) for dataset in report.datasets}
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_data_file),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        title=report.specification.title,
        notes=report.specification.notes,
        cards=_cards(report, comparisons),
        tables=result_tables(report),
        figures=FIGURES,
        labels=dict(FIGURES),
        num_classes=num_classes,
        signed=signed,
        comparisons=comparisons,
        difference_figure=figures.differences(comparisons),
        distances=teacher_distances(report),
        curves=figures.training_curves(report.curves) if report.curves else None,
        accuracy=figures.training_accuracy(report.curves, "top1", "training clips recognised, %"),
        neighbours=figures.training_accuracy(report.curves, "knn_top1", "training clips, k-NN, %"),
        retrievals=report.retrievals,
        num_neighbours=NUM_NEIGHBOURS,
        class_tables=_class_tables(report),
        class_figures=[
            {
                "svg": figures.class_differences(entry),
                "caption": f"{entry.label}, accuracy per class (number of its videos in brackets).",
            }
            for entry in comparisons
            if entry.per_class
        ],
        confusions=[_confusion(result) for result in report.results],
        galleries=shown,
        wheel=colour_wheel_picture() if shown else None,
        datasets=report.datasets,
        versions=versions,
        origins=origins,
        specifications=[
            (name, json.dumps(metadata.get("specification", {}), indent=2, sort_keys=True, ensure_ascii=False))
            for name, metadata in report.trainings.items()
        ],
        library=LIBRARY_VERSION,
        record=record or {},
    )


def write_report(specification: ReportSpecification, root: Path, output: Path) -> Report:
    """Write the page atomically, unless it was made from the same artefacts before; return what it shows.

    Args:
        specification: which experiments, and what people read about them.
        root: output root.
        output: the HTML file.

    Raises:
        UserError: an evaluation is missing or unreadable.
    """
    with Stage("report", REPORT, output) as stage:
        report = collect(specification, root)
        shown = galleries(report)
        inputs = {path: content_digest(path) for path in shown_artefacts(report, shown)}
        versions = distribution_versions(["jinja2", "matplotlib", "numpy", "scipy", "opencv-contrib-python-headless"])
        if not stage.is_finished(specification.model_dump(mode="json"), inputs, versions):
            write_bytes(output, page(report, shown, stage.record).encode())
            stage.finish({"artefacts": len(inputs)})
    return report

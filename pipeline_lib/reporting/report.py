"""The report stage: one self-contained HTML page from the small artefacts of some experiments.

Equal artefacts give equal bytes: no dates, hosts or random ids on the page.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.artefacts.records import LIBRARY_VERSION
from pipeline_lib.configuration.specification import ReportSpecification
from pipeline_lib.evaluation.metrics import Evaluation
from pipeline_lib.evaluation.results import NUM_NEIGHBOURS
from pipeline_lib.media.shards import Shard
from pipeline_lib.reporting import figures
from pipeline_lib.reporting.collect import Report, Result, collect
from pipeline_lib.reporting.compare import Comparison, compare, teacher_distances
from pipeline_lib.reporting.flow_pictures import colour_wheel_picture, galleries
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


def _origins(report: Report) -> tuple[list[tuple[str, str, str]], list[dict[str, Any]]]:
    """Versions of everything that made the artefacts, and the origin of each of them."""
    records: list[tuple[str, dict[str, Any]]] = []
    for name, metadata in report.trainings.items():
        records.append((f"weights {name}", metadata.get("provenance", {})))
    for result in report.results:
        for run in result.runs:
            label = f"scores {result.name}/{run.split}-{run.seed} {result.protocol}"
            records.append((label, dict(run.metrics.get("provenance", {}))))
    for retrieval in report.retrievals:
        for found in retrieval.records:
            label = f"retrieval {retrieval.experiment.name}/{found['split']}-{found['seed']} {found['protocol']}"
            records.append((label, dict(found.get("provenance", {}))))
    records += _shard_records(report)
    versions: dict[tuple[str, str], dict[str, None]] = {}
    rows = []
    for label, record in records:
        stage = str(record.get("stage", label.split()[0]))
        for name, version in record.get("versions", {}).items():
            versions.setdefault((name, str(version)), {})[stage] = None
        if record.get("python"):
            versions.setdefault(("python", str(record["python"])), {})[stage] = None
        inputs = sorted((str(name), str(value)) for name, value in record.get("inputs", {}).items())
        rows.append(
            {
                "name": label,
                "digest": str(record.get("digest", "")),
                "code": str(record.get("code", "")),
                "inputs": inputs,
            }
        )
    listed = [(name, version, ", ".join(sorted(stages))) for (name, version), stages in sorted(versions.items())]
    return listed, rows


def _shard_records(report: Report) -> list[tuple[str, dict[str, Any]]]:
    """Provenance of one shard of each kind that the experiments read: all of a kind are made by the same tools."""
    layout, found = report.layout, dict[str, Path]()
    for experiment in report.specification.experiments:
        if experiment.frame_format is None:
            continue
        place = (experiment.dataset, experiment.frame_format)
        found.setdefault(f"frames {'/'.join(place)}", layout.frames(*place, "x").parent)
        if experiment.motion is not None:
            label = f"motion {'/'.join(place)}/{experiment.motion}"
            found.setdefault(label, layout.motion(*place, experiment.motion, "x").parent)
    records = []
    for label, folder in found.items():
        shard = next(iter(sorted(folder.glob("*.h5"))), None)
        if shard is not None:
            records.append((f"{label}/{shard.stem}", Shard(shard).record))
    return records


def _data_file(name: str) -> str | None:
    """The text of one of the data files; None for another name."""
    return (resources.files(__package__) / name).read_text("utf-8") if name in DATA_FILES else None


def page(report: Report) -> str:
    """The report as HTML."""
    comparisons = compare(report)
    versions, origins = _origins(report)
    num_classes = {dataset.name: len(dataset.classes) for dataset in report.datasets}
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_data_file),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    shown = galleries(report)
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
    )


def write_report(specification: ReportSpecification, root: Path, output: Path) -> Report:
    """Write the page atomically; return what it shows.

    Args:
        specification: which experiments, and what people read about them.
        root: output root.
        output: the HTML file.

    Raises:
        UserError: an evaluation is missing or unreadable.
    """
    report = collect(specification, root)
    write_bytes(output, page(report).encode())
    return report

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
from pipeline_lib.configuration.specification import ReportSpecification
from pipeline_lib.evaluation.results import NUM_NEIGHBOURS
from pipeline_lib.reporting import figures
from pipeline_lib.reporting.code import REPORT
from pipeline_lib.reporting.collect import Report, collect
from pipeline_lib.reporting.compare import Comparison, compare, teacher_distances
from pipeline_lib.reporting.costs import costs_page, costs_path
from pipeline_lib.reporting.flow_pictures import Gallery, colour_wheel_picture, galleries
from pipeline_lib.reporting.mistake_pictures import MistakeGallery, mistake_galleries
from pipeline_lib.reporting.page_file import with_placeholder, write_page
from pipeline_lib.reporting.paper_tables import paper_views
from pipeline_lib.reporting.tables import Table, result_tables
from pipeline_lib.tasks.results import Section, load_presentation, signed

DATA_FILES = ("page.html.j2", "page.css")
"""The page and its style sheet, beside this module; the fingerprint covers them."""


def _cards(report: Report, comparisons: list[Comparison]) -> list[dict[str, str]]:
    """The figures at the top: for each task the column by which rows are ranked."""
    cards = []
    for entry in comparisons[:2]:
        if entry.difference is None:
            continue
        low, high = 100 * entry.difference.low, 100 * entry.difference.high
        label = load_presentation(entry.first.task).columns[0].label
        cards.append(
            {
                "value": f"{signed(100 * entry.difference.mean)} points",
                "label": f"{entry.label}, {label} ({signed(low)} … {signed(high)}; over {entry.difference.over})",
                "tone": {"better": "good", "worse": "bad"}.get(entry.verdict, ""),
            }
        )
    shown = []
    # An experiment under several protocols has one card, of its first.
    for result in {result.name: result for result in reversed(report.results)}.values():
        column = load_presentation(result.task).columns[0]
        shown.append((result.mean(column.name), f"{result.name}, {column.label}"))
    best = sorted(shown, key=lambda pair: -pair[0])[: 4 - len(cards)]
    return cards + [{"value": f"{100 * value:.1f} %", "label": label, "tone": ""} for value, label in best]


def _sections(report: Report, comparisons: list[Comparison]) -> list[Section]:
    """What each task shows beside its table."""
    found = []
    for task in dict.fromkeys(result.task for result in report.results):
        results = [result for result in report.results if result.task == task]
        pairs = [(entry.first, entry.second) for entry in comparisons if entry.difference and entry.first.task == task]
        found += load_presentation(task).sections(results, pairs)
    return found


def _legends(report: Report, tables: Sequence[Table]) -> list[str]:
    """What the columns of each task's tables mean."""
    found = []
    for task in dict.fromkeys(result.task for result in report.results):
        presentation = load_presentation(task)
        shown = {column.name for table in tables if table.task == task for column in table.columns}
        found.append(presentation.legend([column for column in presentation.columns if column.name in shown]))
    return found


def shown_artefacts(report: Report, shown: Sequence[Gallery], mistakes: Sequence[MistakeGallery] = ()) -> list[Path]:
    """The artefacts that the page is made from, and one shard of each kind, because the others were made alike."""
    paths = [*report.inputs, *(path for gallery in shown for strip in gallery.strips for path in strip.shards)]
    paths += sorted({one.shard for gallery in mistakes for one in gallery.shown if one.shard is not None})
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


def page(
    report: Report,
    shown: Sequence[Gallery] = (),
    record: Record | None = None,
    mistakes: Sequence[MistakeGallery] = (),
) -> str:
    """The report as HTML.

    Args:
        report: what it shows.
        shown: pictures of motion.
        record: of the page, which holds it invisibly.
        mistakes: the most confident ones.
    """
    comparisons = compare(report)
    versions, origins = _origins(report.layout, shown_artefacts(report, shown, mistakes))
    tables = result_tables(report)
    tasks = dict.fromkeys(result.task for result in report.results)
    headline = " or ".join(load_presentation(task).columns[0].label for task in tasks)
    distances = teacher_distances(report)
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
        papers=paper_views(report),
        tables=tables,
        legends=_legends(report, tables),
        headline=headline,
        sections=_sections(report, comparisons),
        num_classes=num_classes,
        signed=signed,
        comparisons=comparisons,
        difference_figure=figures.differences(comparisons, headline),
        distances=distances,
        distance_names=list(dict.fromkeys(name for row in distances for name in row.distance or {})),
        curves=figures.training_curves(report.curves),
        has_validation=any("validation_loss" in run.values for runs in report.curves.values() for run in runs),
        accuracy=figures.training_accuracy(report.curves, "top1", "training clips recognised, %"),
        validation=figures.training_accuracy(report.curves, "validation_top1", "validation videos recognised, %"),
        neighbours=figures.training_accuracy(report.curves, "knn_top1", "training clips, k-NN, %"),
        retrievals=report.retrievals,
        num_neighbours=NUM_NEIGHBOURS,
        galleries=shown,
        mistakes=mistakes,
        costs_name=costs_path(report.layout.report(report.specification.name)).name,
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
    """Write the page atomically, unless it exists already for the same artefacts; return what it shows.

    Args:
        specification: which experiments, and what people read about them.
        root: output root.
        output: the HTML file.

    Raises:
        UserError: an evaluation is missing or unreadable.
    """
    with Stage("report", REPORT, output) as stage:
        report = collect(specification, root)
        shown, mistakes = galleries(report), mistake_galleries(report, compare(report))
        inputs = {path: content_digest(path) for path in shown_artefacts(report, shown, mistakes)}
        versions = distribution_versions(["jinja2", "matplotlib", "numpy", "scipy", "opencv-contrib-python-headless"])
        if not stage.is_finished(specification.model_dump(mode="json"), inputs, versions):
            write_page(output, page(report, shown, with_placeholder(stage.record), mistakes))
            stage.finish({"artefacts": len(inputs)})
        # Beside the page and never in it: other machines take other times.
        write_bytes(costs_path(output), costs_page(report, _data_file("page.css") or "").encode())
    return report

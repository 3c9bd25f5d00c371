"""A paper's table in the report: its rows as printed, ours beside them, what differs marked."""

from pathlib import Path

import pytest
from small_tree import make_run, make_tree, training_specification

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EvaluationSpecification, ReportedExperiment, ReportSpecification
from pipeline_lib.configuration.tables import PaperTable
from pipeline_lib.evaluation.runner import evaluate
from pipeline_lib.models.complexity import count
from pipeline_lib.reporting.collect import Report, collect
from pipeline_lib.reporting.paper_tables import paper_text, paper_views
from pipeline_lib.reporting.report import page

TABLE = PaperTable.model_validate(
    {
        "paper": "D3D",
        "number": "Table 2",
        "description": "Kinetics-400",
        "columns": {
            "top1": {"label": "Top-1"},
            "parameters": {"label": "Params", "figure": "parameters_m"},
            "hours": {"label": "Training", "figure": "training_hours"},
        },
        "rows": [
            {"label": "TSN", "printed": {"top1": 73.9}, "quoted": "Wang et al. 2016"},
            {
                "label": "S3D-G <RGB>",
                "printed": {"top1": 74.0, "parameters": 11.56, "hours": 3},
                "experiment": "baseline",
                "differs": "another head",
            },
            {"label": "Detector", "printed": {"top1": 15.2}, "not_yet": "needs action detection"},
        ],
    }
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    layout: Layout = make_tree(tmp_path_factory.mktemp("report") / "output", num_videos=8)
    for seed in (0, 1):
        training = training_specification("baseline", seed=seed)
        make_run(layout, training)
        specification = EvaluationSpecification(
            training=training, protocol_name="two_clips", protocol=Protocol(num_clips=2)
        )
        evaluate(specification, layout.root, layout.evaluation("baseline", "1", str(seed), "two_clips"), 1)
    model = training_specification("baseline").model
    experiment = ReportedExperiment.model_validate(
        {
            "name": "baseline", "description": "Baseline", "stage": "train_baseline", "dataset": "tiny",
            "modality": "rgb", "splits": [1], "seeds": [0, 1], "protocols": ["two_clips"], "frame_format": "small",
            "model": model.name, "network": model.model_dump(), "clip": (8, 32),
            "differs": ["a trial of 0.1 of the steps"],
        }
    )  # fmt: skip
    specification = ReportSpecification(name="t", title="T", experiments=[experiment], tables={"d3d_table2": TABLE})
    return collect(specification, layout.root)


def test_a_tables_rows_stand_as_printed_with_ours_beside_them(report: Report) -> None:
    (view,) = paper_views(report)
    quoted, ours, missing = view.lines
    assert (quoted.experiments, quoted.cells[0].printed, quoted.cells[0].ours) == (
        "quoted: Wang et al. 2016",
        "73.9",
        "",
    )
    result = report.result("baseline")
    assert result is not None
    mean, spread = 100 * result.mean("video_top1"), 100 * (result.spread("video_top1") or 0.0)
    assert ours.cells[0].ours == f"{mean:.1f} ± {spread:.1f}"
    assert ours.cells[0].difference == f"{mean - 74.0:+.1f}".replace("-", "−")
    assert missing.experiments == "not yet: needs action detection"


def test_parameters_are_counted_from_the_experiments_own_network(report: Report) -> None:
    model = training_specification("baseline").model
    num_classes = len(report.datasets[0].classes)
    expected = count(model.name, 8, 32, num_classes=num_classes, counting="weights", options=model.options)
    (view,) = paper_views(report)
    assert view.lines[1].cells[1].printed == "11.56"
    assert view.lines[1].cells[1].ours == f"{expected.parameters / 1e6:.2f}"
    assert view.heads == ["Top-1", "Params (M)", "Training (h)"]
    # Artefacts hold no time, so that ours is not shown.
    assert (view.lines[1].cells[2].printed, view.lines[1].cells[2].ours) == ("3.0", "")


def test_what_differs_is_marked_and_said(report: Report) -> None:
    (view,) = paper_views(report)
    assert view.lines[1].cells[0].marks == ("1",)
    ((mark, note),) = view.notes
    assert (mark, note.split("; ")[:2]) == (
        "1",
        ["Differs from the paper: another head", "a trial of 0.1 of the steps"],
    )
    assert view.lines[0].cells[0].marks == ()


def test_the_table_is_on_the_page_and_in_the_terminal(report: Report, tmp_path: Path) -> None:
    html = page(report)
    assert "D3D, Table 2" in html
    assert "S3D-G &lt;RGB&gt;" in html
    assert "not yet: needs action detection" in html
    text = paper_text(paper_views(report)[0])
    assert "D3D, Table 2: Kinetics-400" in text.splitlines()[0]
    assert "quoted: Wang et al. 2016" in text

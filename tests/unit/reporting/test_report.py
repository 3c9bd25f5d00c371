"""The report from real small artefacts: self-contained, deterministic, and saying what the artefacts say."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_tree import SPECIFICATION, copy_folder, printed, reported, text_of
from small_tree import CLASSES

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.records import beside_digests, content_digest, read_record
from pipeline_lib.artefacts.sealing import write_sealed_json
from pipeline_lib.configuration.specification import (
    ReportedExperiment,
    ReportSpecification,
)
from pipeline_lib.errors import UserError
from pipeline_lib.planning.plan import load_plan
from pipeline_lib.reporting.chain import chain_of
from pipeline_lib.reporting.collect import collect
from pipeline_lib.reporting.compare import compare, teacher_distances
from pipeline_lib.reporting.report import page, write_report
from pipeline_lib.reporting.tables import printed_for, result_tables, results_text
from pipeline_lib.tasks.classification.comparison import paired_difference
from pipeline_lib.tasks.classification.metrics import Evaluation
from pipeline_lib.tasks.classification.scores import ScoreFile, manifest_digest, pieces, write_scores
from pipeline_lib.text_table import text_table
from pipeline_lib.training.weights import load_weights, save_weights


class Checker(HTMLParser):
    """Collects what a page refers to, and that its tags are closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr", "path", "use", "rect", "line", "circle", "stop"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another tag"


def test_the_page_is_self_contained_and_well_formed(tree: Layout, tmp_path: Path) -> None:
    write_report(SPECIFICATION, tree.root, tmp_path / "demo.html")
    content = (tmp_path / "demo.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(content)
    assert checker.open == []
    assert all(target.startswith(("#", "data:image/")) for target in checker.targets)
    assert "url(http" not in content
    assert "@import" not in content
    # The one script is the page's record, which no browser runs.
    assert checker.tags.count("script") == 1 and content.count('<script type="application/json"') == 1
    assert {"svg", "img", "table", "details"} <= set(checker.tags)
    # Every anchor of the navigation exists.
    for anchor in set(re.findall(r'<a href="#(\w+)"', content)):
        assert f'id="{anchor}"' in content
    assert "&lt;d3d&gt; &amp; co" in content


def test_the_page_carries_its_record(tree: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    output = tree.report("demo")
    ending = SPECIFICATION.model_copy(update={"title": "</script><script>alert(1)</script>"})
    write_report(ending, tree.root, output)
    record = read_record(output)
    assert record is not None and record["stage"] == "report"
    assert record["parameters"]["title"] == ending.title
    assert output.read_text(encoding="utf-8").count("<script") == 1
    for path in (
        tree.scores("d3d", "1", "0", "two_clips"), tree.metrics("d3d", "1", "0", "two_clips"),
        tree.weights("d3d", "1", "0"), tree.summary("tiny"), tree.motion("tiny", "small", "tvl1", "000"),
    ):  # fmt: skip
        assert record["inputs"][tree.key(path)] == content_digest(path), path
    written = output.stat().st_mtime_ns
    write_report(ending, tree.root, output)
    assert output.stat().st_mtime_ns == written and "is finished" in capsys.readouterr().err
    write_report(SPECIFICATION, tree.root, output)
    assert output.stat().st_mtime_ns > written
    # The walk back begins at the page too.
    link = chain_of(output)
    assert {one.name.partition("/")[0] for one in link.inputs} >= {"evaluations", "experiments", "manifests", "motion"}
    assert link.problems() == []


def test_equal_artefacts_give_equal_bytes(tree: Layout, tmp_path: Path) -> None:
    write_report(SPECIFICATION, tree.root, tmp_path / "one.html")
    # Another process, with another hash seed.
    command = [sys.executable, "-m", "pipeline_lib", "report", "--specification", SPECIFICATION.model_dump_json()]
    command += ["--root", str(tree.root), "--output", str(tmp_path / "two.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert "two.html" in done.stdout
    assert "rgb_flow" in done.stdout


def test_the_page_says_what_the_score_files_say(tree: Layout) -> None:
    report = collect(SPECIFICATION, tree.root)
    text = text_of(page(report))
    scores = ScoreFile(tree.scores("d3d", "1", "0", "two_clips"))
    value = 100 * Evaluation(scores).video_top1
    assert f"{value:.1f}" in text
    assert f"{value - 75.9:+.1f}".replace("-", "−") in text
    baseline = ScoreFile(tree.scores("baseline", "1", "0", "two_clips"))
    difference = paired_difference([scores], [baseline])
    assert "d3d baseline two_clips " + f"{100 * difference.mean:+.1f}".replace("-", "−") in text
    # What was not used, and why.
    assert "gone" in text
    assert "absent" in text
    assert "1 frame" in text
    assert manifest_digest(baseline)[:12] in text
    assert "ffmpeg" in text
    assert "A tiny run." in text
    for name in CLASSES:
        assert name in text


def test_paper_numbers_are_marked_with_what_differs(tree: Layout) -> None:
    (table,) = result_tables(collect(SPECIFICATION, tree.root))
    rows = {row.name: row for row in table.rows}
    assert rows["d3d"].paper == {"video_top1": 75.9}
    assert rows["d3d"].marks == ["1"]
    assert table.notes == [
        (
            "1",
            "Differs from the paper: random first weights; 2 of 10 listed videos could not be evaluated.",
        )
    ]
    assert rows["baseline"].num_runs == 2
    assert rows["baseline"].spread["video_top1"] is not None
    assert rows["teacher"].marks == []
    assert rows["rgb_flow"].modality == "RGB + Flow"
    shortened = of_one("distill", [printed("D3D, Table 2", differs="generated videos", video_top1=75.9)])
    assert result_tables(collect(shortened, tree.root))[0].rows[0].compared == "video_top1"
    ((_, note),) = result_tables(collect(shortened, tree.root))[0].notes
    assert note.startswith("Differs from the paper: generated videos; ")


def of_one(stage: str, numbers: list[dict[str, object]], **more: object) -> ReportSpecification:
    """A report of the experiment of this stage alone, beside these numbers."""
    (found,) = (one for one in SPECIFICATION.experiments if one.stage == stage)
    experiment = ReportedExperiment.model_validate(found.model_dump() | {"printed": numbers} | more)
    return SPECIFICATION.model_copy(update={"experiments": [experiment]})


def test_a_papers_number_stands_beside_its_own_protocol_alone() -> None:
    numbers = [printed("A", "all_frames", video_top1=71.1), printed("B", "reversed", video_top1=15.2)]
    (experiment,) = of_one("train_baseline", numbers).experiments
    assert [(one.source, one.figures) for one in printed_for(experiment, "all_frames")] == [("A", {"video_top1": 71.1})]
    assert [(one.source, one.figures) for one in printed_for(experiment, "reversed")] == [("B", {"video_top1": 15.2})]
    assert printed_for(experiment, "ten_clips") == []


def test_an_experiment_of_several_tables_shows_each_tables_number(tree: Layout) -> None:
    numbers = [printed("S3D-G, Table 2", video_top1=71.1), printed("D3D, Table 2", video_top1=70.6)]
    report = collect(of_one("distill", numbers), tree.root)
    (row,) = result_tables(report)[0].rows
    assert (row.paper_source, row.paper, row.paper_lines) == (
        "S3D-G, Table 2",
        {"video_top1": 71.1},
        ["D3D, Table 2: Video@1 70.6"],
    )
    assert "D3D, Table 2: Video@1 70.6" in text_of(page(report))


def test_every_figure_of_a_paper_is_shown(tree: Layout) -> None:
    numbers = [printed("R(2+1)D, Table 2", clip_top1=52.8, video_top5=99.1)]
    report = collect(of_one("train_baseline", numbers), tree.root)
    (row,) = result_tables(report)[0].rows
    text = text_of(page(report))
    assert row.compared == "video_top5"
    assert "Video@5 99.1" in text
    assert "Clip@1 52.8" in text
    assert f"{row.figures['video_top5'] - 99.1:+.1f}".replace("-", "−") in text
    assert "Video@5 99.1 [1]" in results_text(report)


def test_rows_of_another_manifest_are_marked_and_not_compared(
    tree: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path / "copy")
    for folder in ("manifests", "evaluations", "experiments"):
        copy_folder(tree, layout, folder)
    path = layout.scores("d3d", "1", "0", "two_clips")
    old = ScoreFile(path)
    record = json.loads(json.dumps(old.record))
    record["inputs"]["manifests/tiny/summary.json"] = "f" * 64
    clips = list(pieces(old))
    write_scores(path, old.videos, old.classes, old.counts, clips, record)
    metrics = layout.metrics("d3d", "1", "0", "two_clips")
    write_sealed_json(metrics, json.loads(metrics.read_text()) | {"manifest": "f" * 64})
    report = collect(SPECIFICATION, layout.root)
    (table,) = result_tables(report)
    rows = {row.name: row for row in table.rows}
    assert {name: row.manifest_marks for name, row in rows.items() if row.manifest_marks} == {"d3d": ["m1"]}
    # In the terminal and on the page, at the name: also where no paper's number stands in the row.
    for shown in (results_text(report), text_of(page(report))):
        assert re.search(r"d3d ?\[?m1\b", shown), shown[:2000]
    without = SPECIFICATION.model_copy(
        update={"experiments": [e.model_copy(update={"printed": []}) for e in SPECIFICATION.experiments]}
    )
    assert "d3d [m1]" in results_text(collect(without, layout.root))
    assert not rows["d3d"].best and f"manifests {table.manifests[0][:12]}, ffffffffffff" in results_text(report)
    assert any("another manifest (ffffffffffff)" in text for _, text in table.notes)
    entry = next(entry for entry in compare(report) if entry.first.name == "d3d")
    assert entry.difference is None
    assert "different manifests" in entry.problem
    assert "different manifests" in text_of(page(report))
    assert main(["compare", str(path), str(layout.scores("baseline", "1", "0", "two_clips"))]) == 2
    assert "different manifests" in capsys.readouterr().err


def test_default_comparisons_and_distances(tree: Layout) -> None:
    report = collect(SPECIFICATION, tree.root)
    assert [entry.label for entry in compare(report)] == ["d3d − baseline", "rgb_flow − baseline"]
    rows = {row.student: row for row in teacher_distances(report)}
    assert set(rows) == {"d3d", "baseline"}
    assert all(row.distance is not None and row.distance["Clips"] == 16 for row in rows.values())


def test_a_figure_that_no_network_can_miss_is_left_out(tree: Layout) -> None:
    unprinted = SPECIFICATION.model_copy(update={"experiments": [reported("d3d", "distill", start="random")]})
    report = collect(unprinted, tree.root)
    (table,) = result_tables(report)
    # Three classes: the five most probable ones hold every label.
    assert "video_top5" not in table.labels and "Video@5" not in results_text(report) + text_of(page(report))
    (run,) = report.results[0].runs
    report.results[0].runs = [dataclasses.replace(run, metrics={**run.metrics, "num_classes": 6})]
    assert "video_top5" in result_tables(report)[0].labels


def test_the_start_of_a_network_stands_in_its_row(tree: Layout) -> None:
    starting = [
        reported("d3d", "distill", start="imagenet (torchvision/r3d_18)"),
        reported("baseline", "train_baseline", start="random"),
    ]
    report = collect(SPECIFICATION.model_copy(update={"experiments": starting}), tree.root)
    text = text_of(page(report))
    assert "s3dg_slim from imagenet (torchvision/r3d_18)" in text and "s3dg_slim from random weights" in text
    assert re.search(r"baseline +RGB +random", results_text(report))
    plan = load_plan(Path())
    names = ("baseline_k400", "flow_predictor_k400", "d3d_demo")
    assert [plan.reported(name).start for name in names] == [
        "imagenet (torchvision/googlenet)", "teacher_k400", "random",
    ]  # fmt: skip
    assert load_plan(Path(), (), {"start": "random"}).reported("baseline_k400").start == "random"


def test_a_missing_evaluation_is_named(tree: Layout) -> None:
    missing = SPECIFICATION.model_copy(update={"experiments": [reported("absent", "train_baseline")]})
    with pytest.raises(UserError, match="absent"):
        collect(missing, tree.root)


def test_terminal_tables_are_aligned(tree: Layout) -> None:
    text = text_table(["name", "value"], [["a", "1.0"], ["longer", "10.0"]])
    assert text.splitlines() == ["name      value", "------  -------", "a           1.0", "longer     10.0"]
    shown = results_text(collect(SPECIFICATION, tree.root))
    assert "75.9 [1]" in shown
    assert len({len(line.split("  ")[0]) for line in shown.splitlines()[2:3]}) == 1


def test_a_pretraining_shows_its_neighbours_and_its_monitor(tree: Layout, tmp_path: Path) -> None:
    layout = Layout(shutil.copytree(tree.root, tmp_path / "output"))
    log = layout.experiment("baseline", "1", "0") / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": n, "total": 1.0 / n, "knn_top1": 0.01 * n}) + "\n" for n in range(1, 9)))
    weights = layout.weights("baseline", "1", "0")
    tensors, metadata = load_weights(weights)
    save_weights(weights, tensors, metadata | {"provenance": metadata["provenance"] | beside_digests([log])})
    figures = {"recall_at_1": 0.5, "recall_at_5": 0.75, "recall_at_10": 1.0, "knn_top1": 0.625}
    record = {
        "experiment": "baseline", "split": 1, "seed": 0, "protocol": "two_clips", "num_queries": 8, "num_gallery": 9,
        "metrics": figures, "provenance": {"stage": "retrieve", "digest": "r" * 64, "versions": {"torch": "7.7.7"}},
    }  # fmt: skip
    write_sealed_json(layout.retrieval("baseline", "1", "0", "two_clips"), record)
    alone = SPECIFICATION.model_copy(
        update={"experiments": [reported("baseline", "pretrain", protocols=[], retrieval="two_clips")]}
    )
    content = page(collect(alone, layout.root))
    checker = Checker()
    checker.feed(content)
    assert checker.open == []
    assert "50.0 75.0 100.0 62.5 8 9" in text_of(content)
    assert "training clips, k-NN" in content and "7.7.7" in content
    layout.retrieval("baseline", "1", "0", "two_clips").unlink()
    with pytest.raises(UserError, match=r"retrieval\.json"):
        collect(alone, layout.root)

"""The commands ``results``, ``compare``, ``evaluate``, ``ensemble`` and ``report`` as a user types them."""

import json
import re
from pathlib import Path

import pytest
from small_tree import make_run, make_tree, training_specification

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import (
    EnsembleSpecification,
    EvaluationSpecification,
    ReportedExperiment,
    ReportSpecification,
)
from pipeline_lib.tasks.classification.metrics import Evaluation
from pipeline_lib.tasks.classification.scores import ScoreFile


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Two runs and their ensemble, made by the commands alone."""
    layout = make_tree(tmp_path_factory.mktemp("commands") / "output", num_videos=12)
    protocol = Protocol(num_clips=2)
    for name in ("baseline", "d3d"):
        training = training_specification(name)
        make_run(layout, training)
        specification = EvaluationSpecification(training=training, protocol_name="p", protocol=protocol)
        text = specification.model_dump_json()
        assert main(["evaluate", "--specification", text, "--root", str(layout.root), "--loader-workers", "0"]) == 0
    ensemble = EnsembleSpecification(
        experiment="both", split=1, seed=0, members=["d3d/1-0", "baseline/1-0"], protocol_name="p", protocol=protocol
    )
    assert main(["ensemble", "--specification", ensemble.model_dump_json(), "--root", str(layout.root)]) == 0
    return layout


def test_compare_prints_the_paired_difference(tree: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tree.scores(name, "1", "0", "p") for name in ("d3d", "baseline")]
    assert main(["compare", *map(str, paths), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    first, second = (Evaluation(ScoreFile(path)).video_top1 for path in paths)
    assert record["video_top1_difference"]["mean"] == pytest.approx(first - second)
    assert record["video_top1_difference"]["num_videos"] == 6
    assert len(record["per_class"]) == 3
    assert record["distance"]["mse"] > 0
    assert main(["compare", *map(str, paths), "--classes", "2"]) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    assert len(shown.splitlines()) == 2 + 2 + 2
    assert main(["compare", str(paths[0]), str(tree.root / "absent.h5")]) == 2
    assert "absent.h5" in capsys.readouterr().err


def test_report_writes_to_its_place_and_prints_the_table(tree: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    experiments = [
        ReportedExperiment(
            name=name,
            description=name,
            stage=stage,
            dataset="tiny",
            modality="rgb",
            splits=[1],
            seeds=[0],
            protocols=["p"],
        )
        for name, stage in (("baseline", "train_baseline"), ("d3d", "distill"), ("both", "ensemble"))
    ]
    specification = ReportSpecification(name="small", title="Small", experiments=experiments)
    assert main(["report", "--specification", specification.model_dump_json(), "--root", str(tree.root)]) == 0
    shown = capsys.readouterr().out
    assert str(tree.report("small")) in shown
    assert tree.report("small").is_file()
    value = 100 * Evaluation(ScoreFile(tree.scores("both", "1", "0", "p"))).video_top1
    assert re.search(rf"both +RGB +{value:.1f}", shown)


def test_results_reads_the_projects_targets(
    tree: Layout, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = ["--project", str(repository)]
    assert main(["results", "dmeo", *project]) == 2
    assert "demo" in capsys.readouterr().err
    # Nothing has been evaluated below this root: the message names the first file that is missing.
    assert main(["results", "demo", *project, "--root", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "metrics.json" in message
    assert "Traceback" not in message

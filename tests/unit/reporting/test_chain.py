"""The chain from a figure to the annotations, and what it says when an input changed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_tree import make_run, make_tree, training_specification

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EnsembleSpecification, EvaluationSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.ensemble import evaluate_ensemble
from pipeline_lib.evaluation.retrieval import retrieve
from pipeline_lib.evaluation.runner import evaluate
from pipeline_lib.reporting.chain import chain_of
from pipeline_lib.training.weights import save_weights


@pytest.fixture
def tree(tmp_path: Path) -> Layout:
    layout = make_tree(tmp_path / "output", motion=True)
    summary = json.loads(layout.summary("tiny").read_text())
    layout.summary("tiny").write_text(json.dumps(summary | {"annotations": {"train.csv": "a" * 64}}))
    for name, modality in (("baseline", "rgb"), ("teacher", "flow")):
        training = training_specification(name, modality)
        make_run(layout, training)
        specification = EvaluationSpecification(training=training, protocol_name="p", protocol=Protocol(num_clips=1))
        evaluate(specification, layout.root, layout.evaluation(name, "1", "0", "p"), 1)
    members = ["baseline/1-0", "teacher/1-0"]
    ensemble = EnsembleSpecification(
        experiment="both", split=1, seed=0, members=members, protocol_name="p", protocol=Protocol(num_clips=1)
    )
    evaluate_ensemble(ensemble, layout.root, layout.evaluation("both", "1", "0", "p"))
    return layout


def test_a_metric_leads_to_the_annotations(tree: Layout) -> None:
    link = chain_of(tree.metrics("both", "1", "0", "p"))
    text = "\n".join(link.lines())
    order = [
        "metrics evaluations/both", "scores evaluations/both", "scores evaluations/baseline",
        "weights experiments/baseline",
        "frames frames/tiny/small", "manifest manifests/tiny", "annotations train.csv", "scores evaluations/teacher",
        "motion motion/tiny/small/tvl1",
    ]  # fmt: skip
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)
    assert "a" * 64 in text
    assert "ffmpeg 7.0" in text
    assert link.problems() == []


def test_changed_and_missing_inputs_are_told(tree: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    path = tree.metrics("baseline", "1", "0", "p")
    assert main(["provenance", str(path)]) == 0
    # Weights of another seed in the place of those that were evaluated.
    make_run(tree, training_specification("baseline", seed=3))
    shutil.copy(tree.weights("baseline", "1", "3"), tree.weights("baseline", "1", "0"))
    assert main(["provenance", str(path)]) == 1
    assert "weights.safetensors   !! changed since" in capsys.readouterr().out
    summary = json.loads(tree.summary("tiny").read_text())
    tree.summary("tiny").write_text(json.dumps(summary | {"digest": "b" * 64}))
    assert any("manifest" in problem for problem in chain_of(path).problems())
    shutil.rmtree(tree.root / "frames")
    assert any(problem.endswith("missing") for problem in chain_of(path).problems())


def test_every_artefact_has_a_chain(tree: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    training = training_specification("baseline")
    specification = EvaluationSpecification(training=training, protocol_name="near", protocol=Protocol(num_clips=1))
    retrieve(specification, tree.root, tree.retrieval("baseline", "1", "0", "near"), 1)
    for path, first in (
        (tree.retrieval("baseline", "1", "0", "near"), "retrieval"),
        (tree.scores("teacher", "1", "0", "p"), "scores"),
        (tree.weights("teacher", "1", "0"), "weights"),
        (tree.motion("tiny", "small", "tvl1", "000"), "motion"),
        (tree.frames("tiny", "small", "001"), "frames"),
        (tree.manifest("tiny"), "manifest"),
    ):
        assert main(["provenance", str(path), "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["name"].startswith(first)
        assert "annotations train.csv" in json.dumps(record)


def test_imported_weights_end_a_chain_with_their_source(tree: Layout) -> None:
    imported = tree.imported("i3d")
    tensors = {"weight": torch.zeros(2)}
    save_weights(imported, tensors, {"source": "a public checkpoint"})
    training = training_specification("tuned").model_copy(update={"initialise_from": "imported/i3d"})
    make_run(tree, training)
    link = chain_of(tree.weights("tuned", "1", "0"))
    (found,) = [source for source in link.inputs if source.name == "imported weights imported/i3d.safetensors"]
    assert found.facts == [f"sha256 {file_digest(imported)}", "source a public checkpoint"]
    imported.unlink()
    assert any(
        "i3d.safetensors: missing" in problem for problem in chain_of(tree.weights("tuned", "1", "0")).problems()
    )


def test_other_paths_are_refused(tree: Layout, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        chain_of(tree.root / "evaluations" / "absent")
    with pytest.raises(UserError, match="below none of"):
        chain_of(tmp_path)
    with pytest.raises(UserError, match="one artefact"):
        chain_of(tree.root / "evaluations" / "both")

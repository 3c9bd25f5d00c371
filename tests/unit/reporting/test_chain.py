"""The chain from a figure to the annotations, and what it says when an input changed."""

import json
import shutil
from pathlib import Path

import h5py
import pytest
import torch
from small_tree import make_run, make_tree, training_specification

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.sealing import sealed, write_sealed_json
from pipeline_lib.artefacts.stage import sidecar_path
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EnsembleSpecification, EvaluationSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.ensemble import evaluate_ensemble
from pipeline_lib.evaluation.retrieval import retrieve
from pipeline_lib.evaluation.runner import evaluate
from pipeline_lib.manifests.shard_lists import read_shard_list, write_shard_list
from pipeline_lib.reporting.chain import chain_of
from pipeline_lib.training.weights import save_weights


@pytest.fixture
def tree(tmp_path: Path) -> Layout:
    layout = make_tree(tmp_path / "output", motion=True)
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
        "evaluations/both/1-0/p/metrics.json", "evaluations/both/1-0/p/scores.h5",
        "evaluations/baseline/1-0/p/scores.h5", "experiments/baseline/1-0/weights.safetensors",
        "frames/tiny/small/*.h5 (2 files)", "manifests/tiny/shards/*.json (2 files)", "manifests/tiny/summary.json",
        "train.csv", "evaluations/teacher/1-0/p/scores.h5", "motion/tiny/small/tvl1/*.h5 (2 files)",
    ]  # fmt: skip
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)
    assert "a" * 64 in text
    assert "ffmpeg 7.0" in text and "0 rejected, 8 videos" in text
    assert "3 classes, 4 clips, 4 videos" in text
    assert link.problems() == []


def test_changed_and_missing_inputs_are_told(tree: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    path = tree.metrics("baseline", "1", "0", "p")
    assert main(["provenance", str(path)]) == 0
    # Weights of another seed in the place of those that were evaluated.
    make_run(tree, training_specification("baseline", seed=3))
    shutil.copy(tree.weights("baseline", "1", "3"), tree.weights("baseline", "1", "0"))
    assert main(["provenance", str(path)]) == 1
    assert "weights.safetensors   !! changed since" in capsys.readouterr().out
    # A list that was made again alone: the frames, and all that follows, are of the earlier one.
    videos = read_shard_list(tree.shard_list("tiny", "001"))
    write_shard_list(tree.shard_list("tiny", "001"), "tiny", "001", videos[1:])
    problems = chain_of(path).problems()
    assert "manifests/tiny/shards/*.json (2 files): changed since: 001.json" in problems
    summary = json.loads(tree.summary("tiny").read_text())
    summary["provenance"]["content"] = "b" * 64
    write_sealed_json(tree.summary("tiny"), summary)
    assert any(problem.startswith("manifests/tiny/summary.json: changed") for problem in chain_of(path).problems())
    tree.frames("tiny", "small", "001").unlink()
    assert any(problem.startswith("frames/tiny/small/*.h5 (1 files): changed") for problem in chain_of(path).problems())
    shutil.rmtree(tree.root / "frames")
    assert any(problem.endswith("missing") for problem in chain_of(path).problems())


def test_every_artefact_has_a_chain(tree: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    training = training_specification("baseline")
    specification = EvaluationSpecification(training=training, protocol_name="near", protocol=Protocol(num_clips=1))
    retrieve(specification, tree.root, tree.retrieval("baseline", "1", "0", "near"), 1)
    for path in (
        tree.retrieval("baseline", "1", "0", "near"),
        tree.scores("teacher", "1", "0", "p"),
        tree.evaluation("teacher", "1", "0", "p"),
        tree.weights("teacher", "1", "0"),
        tree.experiment("teacher", "1", "0") / "metrics.jsonl",
        tree.motion("tiny", "small", "tvl1", "000"),
        tree.frames("tiny", "small", "001"),
        tree.frames("tiny", "small", "001").parent,
        tree.manifest("tiny"),
        tree.manifest_folder("tiny"),
        tree.shard_list("tiny", "000"),
    ):
        assert main(["provenance", str(path), "--json"]) == 0, path
        record = json.loads(capsys.readouterr().out)
        assert record["name"].startswith(path.relative_to(tree.root).parts[0])
        assert '"name": "train.csv"' in json.dumps(record), path


def test_metrics_of_other_scores_are_told(tree: Layout) -> None:
    path = tree.metrics("baseline", "1", "0", "p")
    content = json.loads(path.read_text())
    content["provenance"]["digest"] = "0" * 64
    write_sealed_json(path, content)
    assert chain_of(path).state == "not of this scores.h5"


def test_shards_of_several_versions_are_told(tree: Layout) -> None:
    path = tree.frames("tiny", "small", "001")
    with h5py.File(path, "r+") as file:
        record = json.loads(file.attrs["provenance"])
        file.attrs["provenance"] = json.dumps(sealed(record | {"versions": {"ffmpeg": "8.0"}, "code": "c" * 64}))
    (told,) = [fact for fact in chain_of(path.parent).facts if fact.startswith("but ")]
    assert told == f"but 1 of the files by code {'c' * 16} with ffmpeg 8.0"


def test_a_file_from_outside_is_found_through_the_sidecar(tree: Layout, tmp_path: Path) -> None:
    listing = tmp_path / "elsewhere/train.csv"
    listing.parent.mkdir()
    listing.write_text("id,label\n")
    summary = json.loads(tree.summary("tiny").read_text())
    summary["provenance"]["inputs"] = {"train.csv": file_digest(listing)}
    write_sealed_json(tree.summary("tiny"), summary)
    write_sealed_json(sidecar_path(tree.summary("tiny")), {"outside": {"train.csv": str(listing)}, "seconds": 1})
    link = chain_of(tree.summary("tiny"))
    assert [(one.name, one.facts, one.state) for one in link.inputs] == [
        (str(listing), [f"sha256 {file_digest(listing)}"], "")
    ]
    listing.write_text("id,label\nmore,1\n")
    assert chain_of(tree.summary("tiny")).inputs[0].state.startswith("changed since")
    # On another machine it does not lie there, which is no mistake.
    listing.unlink()
    (found,) = chain_of(tree.summary("tiny")).inputs
    assert found.facts[-1] == "not on this machine" and found.state == ""


def test_imported_weights_end_a_chain_with_their_source(tree: Layout) -> None:
    imported = tree.imported("i3d")
    tensors = {"weight": torch.zeros(2)}
    save_weights(imported, tensors, {"source": "a public checkpoint"})
    training = training_specification("tuned").model_copy(update={"start": "imported/i3d"})
    make_run(tree, training)
    link = chain_of(tree.weights("tuned", "1", "0"))
    (found,) = [source for source in link.inputs if source.name == "imported/i3d.safetensors"]
    assert found.facts == [f"sha256 {file_digest(imported)}", "source a public checkpoint"]
    imported.unlink()
    assert any(
        "i3d.safetensors: missing" in problem for problem in chain_of(tree.weights("tuned", "1", "0")).problems()
    )


def test_other_paths_are_refused(tree: Layout, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        chain_of(tree.root / "evaluations" / "absent")
    with pytest.raises(UserError, match="not one artefact"):
        chain_of(tmp_path)
    with pytest.raises(UserError, match="not one artefact"):
        chain_of(tree.root / "evaluations" / "both")

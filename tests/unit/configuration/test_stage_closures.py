"""Which modules each stage's fingerprint covers: pinned, since a stray import makes an edit redo weeks of work.

After a wanted change: ``python tests/unit/configuration/test_stage_closures.py``, and read the difference.
"""

import json
from pathlib import Path

import pytest

from pipeline_lib.artefacts.fingerprint import closure
from pipeline_lib.configuration.data import Dataset, Motion
from pipeline_lib.configuration.motions import METHODS
from pipeline_lib.evaluation.code import ensemble_modules, evaluation_modules, retrieval_modules
from pipeline_lib.flow.code import motion_modules
from pipeline_lib.models.catalogue import INCEPTION, RESNET, SLOW, resolve
from pipeline_lib.planning import code
from pipeline_lib.planning.plan import Plan, load_plan
from pipeline_lib.training.code import training_modules

REPOSITORY = Path(__file__).resolve().parents[3]
PINNED = Path(__file__).with_name("closures.json")
TRAININGS = ("baseline_demo", "d3d_demo", "s3dg_flow_loss_k400", "r2plus1d_18_8f_k400", "slow_r50_k400", "modist_demo")


def _training_roots(plan: Plan, name: str) -> list[str]:
    return training_modules(plan.runs(name)[0].training)


def roots() -> dict[str, list[str]]:
    """What each stage names as its own code."""
    plan = load_plan(REPOSITORY)
    found = {
        "generate": code.GENERATE,
        "frames": code.FRAMES,
        "strength": code.STRENGTH,
        "ensemble": ensemble_modules("classification"),
        "report": code.REPORT,
    }
    found |= {f"manifest {name}": code.manifest_modules(Dataset(format=name)) for name in ("kinetics", "table", "ava")}
    found |= {f"motion {method}": motion_modules(Motion(method=method)) for method in METHODS}
    found |= {f"train {name}": _training_roots(plan, name) for name in TRAININGS}
    for network in ("s3dg_slim", "r3d_18"):
        modules = evaluation_modules(network, "classification")
        found[f"evaluate {modules[-1].rsplit('.', 1)[1]}"] = modules
    found["retrieve slow_resnet"] = retrieval_modules("slow_r50", "classification")
    return found


def current() -> dict[str, list[str]]:
    """The closure of every stage, names without the package's."""
    return {
        stage: [name.removeprefix("pipeline_lib.") for name in closure(modules)] for stage, modules in roots().items()
    }


@pytest.fixture(scope="module")
def closures() -> dict[str, list[str]]:
    return current()


def rooms(modules: list[str]) -> set[str]:
    """The first part of each module's name."""
    return {module.split(".")[0] for module in modules}


def of_kind(closures: dict[str, list[str]], kind: str) -> dict[str, list[str]]:
    found = {stage: modules for stage, modules in closures.items() if stage.split()[0] == kind}
    assert found
    return found


def test_the_closures_are_the_pinned_ones(closures: dict[str, list[str]]) -> None:
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))
    assert closures.keys() == pinned.keys()
    for stage, modules in closures.items():
        more, less = sorted(set(modules) - set(pinned[stage])), sorted(set(pinned[stage]) - set(modules))
        assert not more and not less, (
            f"{stage}: an edit to {more} now redoes it, to {less} no longer; see this file's head"
        )


def test_frames_know_neither_flow_nor_networks(closures: dict[str, list[str]]) -> None:
    assert rooms(closures["frames"]) <= {"artefacts", "containers", "manifests", "media"}
    # Of the manifests, only the list of videos, their bytes, which images are a video, and what a gap of a clock is.
    known = [name for name in closures["frames"] if name.startswith("manifests")]
    assert known == [f"manifests.{name}" for name in ("content", "damage", "frame_folders", "shard_lists")]
    assert "generation.videos" not in closures["frames"]
    assert "media.shards" in closures["frames"]


def test_manifests_know_neither_frames_nor_flow_nor_networks(closures: dict[str, list[str]]) -> None:
    for name, modules in of_kind(closures, "manifest").items():
        assert rooms(modules) <= {"artefacts", "containers", "manifests"}
        importers = {"kinetics": "kinetics", "table": "tables", "ava": "ava"}
        own = f"manifests.{importers[name.split()[1]]}"
        assert {f"manifests.{module}" for module in importers.values()} & set(modules) == {own}


@pytest.mark.parametrize("method", METHODS)
def test_flow_knows_its_own_method_and_no_network_or_training(closures: dict[str, list[str]], method: str) -> None:
    modules = closures[f"motion {method}"]
    # Only flow that is read from files needs to know where they lie.
    assert rooms(modules) <= {"artefacts", "media", "flow", *(["manifests"] if METHODS[method].reads_files else [])}
    assert METHODS[method].module.removeprefix("pipeline_lib.") in modules
    assert "media.frames_stage" not in modules
    others = {METHODS[other].module.removeprefix("pipeline_lib.") for other in METHODS if other != method}
    # Flow edges are made from a flow; RAFT's by default.
    assert others & set(modules) == ({"flow.raft.method"} if method == "flow_edges" else set())


def test_flow_edges_know_the_flow_that_they_are_made_from() -> None:
    modules = closure(motion_modules(Motion(method="flow_edges", parameters={"source": "farneback"})))
    assert "pipeline_lib.flow.farneback" in modules
    assert "pipeline_lib.flow.tvl1.method" not in modules


@pytest.mark.parametrize(
    ("stage", "network"),
    [
        ("train baseline_demo", INCEPTION),
        ("train d3d_demo", INCEPTION),
        ("evaluate inception3d", INCEPTION),
        ("train r2plus1d_18_8f_k400", RESNET),
        ("evaluate resnet3d", RESNET),
        ("train slow_r50_k400", SLOW),
    ],
)
def test_an_edit_to_one_network_leaves_the_others_trained(
    closures: dict[str, list[str]], stage: str, network: str
) -> None:
    names = {module.removeprefix("pipeline_lib.") for module in (INCEPTION, RESNET, SLOW)}
    assert names & set(closures[stage]) == {network.removeprefix("pipeline_lib.")}


def test_every_experiment_covers_its_own_and_its_teachers_network_and_its_objective() -> None:
    plan = load_plan(REPOSITORY)
    for name in plan.trained_names:
        run = plan.runs(name)[0]
        modules = _training_roots(plan, name)
        networks = {resolve(one.trained.model.name)[0] for one in (run, run.teacher) if one is not None}
        objective = f"pipeline_lib.training.objectives.{run.trained.objective.name}"
        assert networks | {objective} <= set(closure(modules))


def test_an_objective_is_covered_only_where_it_is_used(closures: dict[str, list[str]]) -> None:
    assert "training.objectives.distillation" in closures["train d3d_demo"]
    assert "training.objectives.distillation" not in closures["train baseline_demo"]
    assert "models.decoders" in closures["train s3dg_flow_loss_k400"]
    assert "models.decoders" not in closures["train d3d_demo"]


def test_training_reads_clips_and_computes_no_flow(closures: dict[str, list[str]]) -> None:
    for stage, modules in (of_kind(closures, "train") | of_kind(closures, "evaluate")).items():
        assert not rooms(modules) & {"manifests", "flow", "reporting", "analysis"}, stage
        assert "media.frames_stage" not in modules
    for stage, modules in of_kind(closures, "train").items():
        assert "evaluation" not in rooms(modules), stage


def test_an_edit_to_the_trainer_evaluates_nothing_again_by_itself(closures: dict[str, list[str]]) -> None:
    for stage, modules in of_kind(closures, "evaluate").items():
        assert not {"training.trainer", "training.run", "training.optimisers"} & set(modules), stage


def test_an_ensemble_needs_no_network(closures: dict[str, list[str]]) -> None:
    assert rooms(closures["ensemble"]) <= {"artefacts", "evaluation", "tasks"}
    assert "tasks.outputs" not in closures["ensemble"]


def test_the_reports_code_is_in_no_other_stage(closures: dict[str, list[str]]) -> None:
    assert "reporting.report" in closures["report"]
    assert not rooms(closures["report"]) & {"training", "models"}
    for stage, modules in closures.items():
        assert stage == "report" or "reporting" not in rooms(modules), stage


def test_no_stage_covers_commands_or_configuration(closures: dict[str, list[str]]) -> None:
    for stage, modules in closures.items():
        assert not rooms(modules) & {"cli", "configuration", "planning", "errors"}, stage


if __name__ == "__main__":
    PINNED.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")

"""Training and evaluation by an experiment's name: the rules' own specification, and changes that touch no artefact."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import yaml
from packed_set import make_packed_set

from pipeline_lib.__main__ import main
from pipeline_lib.errors import UserError
from pipeline_lib.planning.by_name import add_run_arguments, named_evaluation, named_run, own_settings
from pipeline_lib.planning.plan import load_plan


def options(repository: Path, *words: str) -> Namespace:
    parser = ArgumentParser()
    add_run_arguments(parser, "a TrainingSpecification")
    parser.add_argument("--protocol")
    return parser.parse_args(["--project", str(repository), *words])


def test_a_name_stands_for_what_the_rules_give(repository: Path) -> None:
    plan = load_plan(repository)
    run, layout = named_run(options(repository, "--experiment", "baseline_demo", "--seed", "1"))
    assert run.training == plan.run("baseline_demo", 1, 1).training
    assert layout.root == repository / "output"
    specification, layout = named_evaluation(options(repository, "--experiment", "d3d_demo", "--root", "elsewhere"))
    assert specification == plan.run("d3d_demo", 1, 0).evaluation("two_clips")
    assert layout.root == Path("elsewhere")
    as_json = ("--specification", specification.model_dump_json(), "--root", "elsewhere")
    assert named_evaluation(options(repository, *as_json))[0] == specification


def test_settings_have_the_types_of_the_configuration(repository: Path) -> None:
    settings = ["recipe.steps=20", "recipe.schedule.base_rate=1e-3", "recipe.schedule.milestones=[5, 10]"]
    settings += ["objective.weight=7", "model.options.depth_multiplier=0.5", "description=Some words"]
    run, _ = named_run(options(repository, "--experiment", "d3d_demo"), settings)
    training = run.training
    assert (training.recipe.steps, training.recipe.schedule.base_rate) == (20, 0.001)
    assert training.recipe.schedule.milestones == [5, 10]
    assert training.objective.weight == 7.0 and training.objective.endpoint == "Mixed_4f"
    assert training.model.options["depth_multiplier"] == 0.5
    # Others start from it as it is, and its teacher stays.
    assert training.teacher == load_plan(repository).run("d3d_demo").training.teacher


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.stepz=20", r"^--set recipe\.stepz: unknown key\. Did you mean `steps`"),
        ("recipe.steps=many", r"^--set recipe\.steps: the value 'many' is not valid"),
        ("objective.wieght=1", r"^--set objective\.wieght: unknown key\. Did you mean `weight`"),
        ("model.options.depth_multiplyer=1", r"^--set model\.options\.depth_multiplyer: .*`depth_multiplier`"),
        ("recipe.steps", "write KEY=VALUE"),
        ("recipe.steps=[1", "neither JSON nor YAML"),
    ],
)
def test_a_wrong_setting_is_answered_with_the_right_one(repository: Path, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        named_run(options(repository, "--experiment", "d3d_demo"), [setting])


def test_wrong_names_are_answered_with_the_nearest(repository: Path) -> None:
    with pytest.raises(UserError, match="Did you mean `d3d_demo`"):
        named_run(options(repository, "--experiment", "d3d_dmo"), ["recipe.steps=1"])
    with pytest.raises(UserError, match="Did you mean `two_clips`"):
        named_evaluation(options(repository, "--experiment", "d3d_demo", "--protocol", "two_clip"))
    with pytest.raises(UserError, match="no run d3d_demo/4-0"):
        named_run(options(repository, "--experiment", "d3d_demo", "--split", "4"))


def test_settings_of_the_whole_configuration_are_told_from_the_experiments_own() -> None:
    settings = ["recipe.steps=2", "recipe=other", "start=random", "hardware.device=cpu", "experiments.a.seeds=[1]"]
    assert own_settings(settings, "x") == (
        ["hardware.device=cpu", "experiments.a.seeds=[1]"],
        ["experiments.x.recipe_changes.steps=2", "experiments.x.recipe=other", "experiments.x.start=random"],
    )


def test_a_trial_takes_settings_of_the_configuration_too(repository: Path) -> None:
    settings = ["experiments.d3d_demo.objective.weight=7", "recipe.steps=20", "hardware.num_threads=3"]
    training = named_run(options(repository, "--experiment", "d3d_demo"), settings)[0].training
    assert (training.objective.weight, training.recipe.steps, training.hardware.num_threads) == (7.0, 20, 3)


def test_a_trial_leaves_the_runs_own_folder_alone(repository: Path, tmp_path: Path) -> None:
    root = tmp_path / "output"
    packed = make_packed_set(root)
    experiment = {
        "description": "A test",
        "stage": "train_baseline",
        "dataset": packed.name,
        "frame_format": "short36",
        "model": {"name": "s3dg_slim", "options": {"depth_multiplier": 0.0625, "minimum_depth": 4}},
        "recipe": "demo_rgb",
        "recipe_changes": {
            "steps": 2,
            "global_batch": 4,
            "sampling": {"num_frames": 8, "crop": 32, "short_side": [36, 36]},
            "reestimate_batch_norm": 0,
        },
        "protocols": ["two_clips"],
    }
    overlay = {
        "output": str(root),
        "hardware": {"device": "cpu"},
        "datasets": {packed.name: {"format": "table", "num_shards": packed.num_shards}},
        "frame_formats": {"short36": {"short_side": 36}},
        "experiments": {"squares": experiment},
    }
    configfile = tmp_path / "my.yaml"
    configfile.write_text(yaml.safe_dump(overlay))
    words = ["--experiment", "squares", "--project", str(repository), "--configfile", str(configfile)]
    assert main(["train", *words, "--overfit", "4", "--set", "recipe.steps=3"]) == 0
    trial = root / "trials/squares/1-0"
    log = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    assert (trial / "weights.safetensors").is_file() and log[-1]["step"] == 3
    assert not (root / "experiments").exists()
    # Without changes it is the rules' own run: the same specification, at its place.
    assert main(["train", *words]) == 0
    run = load_plan(repository, [configfile]).run("squares")
    assert json.loads((run.folder / "specification.json").read_text()) == run.training.model_dump(mode="json")
    assert main(["evaluate", *words, "--loader-workers", "0"]) == 0
    (metrics,) = run.metrics
    assert json.loads(metrics.read_text())["num_videos"] == 8
    assert main(["train", *words, "--overfit", "0"]) == 2

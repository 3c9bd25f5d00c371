from pathlib import Path

import pytest
import yaml

from pipeline_lib.configuration.training import Recipe
from pipeline_lib.training.batch_plan import plan_batches
from pipeline_lib.training.schedules import learning_rate

RECIPES = Path(__file__).resolve().parents[3] / "workflow" / "recipes"


def load(name: str) -> Recipe:
    return Recipe.model_validate(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_recipe_runs_on_one_device_and_shrinks(name):
    recipe = load(name)
    plan_batches(recipe, 1)
    assert learning_rate(recipe.schedule, 0, recipe.steps) <= recipe.schedule.base_rate
    assert recipe.shrunk(0.001).steps == max(1, round(recipe.steps * 0.001))
    assert len(recipe.source) > 20


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("mini_kinetics", {0: 0.1, 59_999: 0.1, 60_000: 0.01, 70_000: 0.001, 79_999: 0.001}),
        ("s3dg_finetune", {0: 0.01, 5_999: 0.01, 6_000: 0.001, 7_999: 0.001}),
        ("i3d_rgb", {0: 0.1, 97_000: 0.01, 108_000: 0.001, 114_999: 0.001}),
        ("i3d_flow", {0: 0.1, 108_000: 0.001, 114_999: 0.001, 115_000: 0.1, 154_999: 0.1}),
    ],
)
def test_rates_are_the_papers(name, rates):
    recipe = load(name)
    for step, rate in rates.items():
        assert learning_rate(recipe.schedule, step, recipe.steps) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("mini_kinetics", 56),
        ("something_something", 16),
        ("i3d_rgb", 64),
        ("d3d", 64),
        ("s3dg_finetune", 8),
        ("d3d_finetune", 10),
    ],
)
def test_on_the_papers_devices_nothing_is_accumulated(name, devices):
    plan = plan_batches(load(name), devices)
    assert (plan.micro_batch, plan.num_accumulated) == (6, 1)

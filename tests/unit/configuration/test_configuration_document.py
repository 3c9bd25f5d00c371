"""docs/configuration.md explains every key, and its examples are valid."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pipeline_lib.configuration import data, download, experiments, root, training

MODELS = {
    model
    for module in (data, download, experiments, root, training)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module.__name__
} - {experiments.Model}


def document(repository: Path) -> str:
    return (repository / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", sorted(MODELS, key=lambda model: model.__name__))
def test_every_key_has_a_row(repository: Path, model: type[BaseModel]) -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", document(repository), re.MULTILINE)
    rows = [
        set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)))) for table in tables
    ]
    assert any(set(model.model_fields) <= keys for keys in rows), set(model.model_fields)


def test_the_examples_are_valid_together(repository: Path, planned: Any) -> None:
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", document(repository), re.DOTALL)]
    own, mine, experiment = examples
    teacher = {
        "description": "The teacher",
        "stage": "train_teacher",
        "dataset": "mine",
        "frame_format": "short256_25fps",
        "modality": "flow",
        "motion": "tvl1",
        "model": {"name": "s3dg_slim"},
        "recipe": "d3d",
    }
    overlay = experiment | {
        "output": own["output"],
        "datasets": own["datasets"] | mine["datasets"],
        "experiments": experiment["experiments"] | {"teacher_mine": teacher},
    }
    plan = planned(overlay)
    (run,) = plan.runs("d3d_mine")
    specification = run.training
    assert specification.recipe.steps == 5000
    assert specification.teacher.experiment == "teacher_mine"
    assert str(plan.layout.root) == own["output"]

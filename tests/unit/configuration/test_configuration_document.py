"""docs/configuration.md explains every key, and its examples are valid."""

import re
from pathlib import Path
from typing import Any

import pytest
from documents import settings
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


def test_the_examples_together_are_what_the_text_says(repository: Path, planned: Any) -> None:
    shown = settings(repository / "docs" / "configuration.md")
    plan = planned(shown)
    (run,) = plan.runs("d3d_mine")
    specification = run.training
    assert specification.recipe.steps == 5000
    assert specification.teacher.experiment == "teacher_mine"
    assert str(plan.layout.root) == shown["output"]

"""The committed JSON schemas: they follow the models, admit every file of the project, and mark mistakes."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline_lib.__main__ import main
from pipeline_lib.configuration.schemas import FOLDER, schemas

FILES = [
    ("config.yaml", "config.json"),
    ("workflow/targets.yaml", "targets.json"),
    ("workflow/experiments/*.yaml", "experiments.json"),
    ("workflow/recipes/*.yaml", "recipe.json"),
]


def problems(repository: Path, schema: str, document: Any) -> list[str]:
    content = json.loads((repository / FOLDER / schema).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(content)
    return [error.message for error in jsonschema.Draft202012Validator(content).iter_errors(document)]


def test_the_committed_schemas_are_those_of_the_models(repository: Path) -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in (repository / FOLDER).glob("*.json")}
    assert committed == schemas(), "run: python -m pipeline_lib schema --write"


@pytest.mark.parametrize(("pattern", "schema"), FILES)
def test_every_file_of_the_project_fits_its_schema_and_names_it(repository: Path, pattern: str, schema: str) -> None:
    paths = sorted(repository.glob(pattern))
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert problems(repository, schema, yaml.safe_load(text)) == [], path
        named = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / named).resolve() == (repository / FOLDER / schema).resolve(), path


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ("config.json", {"frame_formats": {"small": {"short_sidee": 64}}}),
        ("config.json", {"hardware": {"device": "gpu"}}),
        ("config.json", {"trial": 2}),
        ("recipe.json", {"steps": 3}),
        ("experiments.json", {"mine": {"stage": "distil"}}),
        ("experiments.json", {"mine": {"description": "two", "members": ["one"]}}),
        ("targets.json", {"mine": {"experiments": ["d3d_demo"]}}),
    ],
)
def test_a_mistake_is_marked(repository: Path, schema: str, document: Any) -> None:
    assert problems(repository, schema, document)


def test_an_overlay_may_give_a_single_key_of_an_experiment(repository: Path) -> None:
    overlay = {
        "experiments": {
            "d3d_k400": {"objective": {"name": "distillation", "weight": 10.0}},
            "two_stream_k400": {"members": ["baseline_k400", "teacher_k400"]},
        },
        "datasets": {"kinetics400": {"videos": ["/data/k400"]}},
    }
    assert problems(repository, "config.json", overlay) == []


def test_keys_carry_their_explanation() -> None:
    recipe = json.loads(schemas()["recipe.json"])
    assert recipe["properties"]["global_batch"]["description"] == "Clips per optimiser step over all devices."


def test_the_command_checks_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--project", str(tmp_path)]) == 1
    assert "recipe.json: not up to date" in capsys.readouterr().out
    assert main(["schema", "--project", str(tmp_path), "--write"]) == 0
    assert main(["schema", "--project", str(tmp_path)]) == 0
    (tmp_path / FOLDER / "recipe.json").write_text("{}\n")
    assert main(["schema", "--project", str(tmp_path)]) == 1
    assert "config.json" not in capsys.readouterr().out.splitlines()[-1]

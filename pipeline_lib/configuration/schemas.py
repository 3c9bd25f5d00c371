"""JSON schemas of what users write, by which an editor completes and explains keys and marks mistakes.

They are generated from the models that check the configuration. They are committed, so that editors need no Python.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline_lib.configuration.data import Name
from pipeline_lib.configuration.experiments import Target
from pipeline_lib.configuration.root import AnyExperiment, Configuration
from pipeline_lib.configuration.tables import PaperTable
from pipeline_lib.configuration.training import Recipe

FOLDER = Path("workflow") / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _partial(node: Any) -> Any:
    """The schema of a part of a document: nothing is required, and a part may fit several alternatives."""
    if isinstance(node, dict):
        changed = {key: _partial(value) for key, value in node.items() if key not in ("required", "discriminator")}
        if "oneOf" in changed:
            changed["anyOf"] = changed.pop("oneOf")
        return changed
    return [_partial(value) for value in node] if isinstance(node, list) else node


def _by_name(kind: Any, title: str) -> dict[str, Any]:
    """A file of entries by name; names that begin with ``_`` only hold YAML anchors."""
    schema = TypeAdapter(dict[Name, kind]).json_schema()
    schema["patternProperties"]["^_"] = {"type": "object"}
    return schema | {"title": title, "additionalProperties": False}


def schemas() -> dict[str, str]:
    """The text of every schema, by its file's name in ``workflow/schemas``."""
    found = {
        # An overlay gives parts of it, down to a single key of one experiment.
        "config.json": _partial(Configuration.model_json_schema()) | {"title": "config.yaml and its overlays"},
        "experiments.json": _by_name(AnyExperiment, "A file of workflow/experiments"),
        "recipe.json": Recipe.model_json_schema() | {"title": "A file of workflow/recipes"},
        "targets.json": _by_name(Target, "workflow/targets.yaml"),
        "tables.json": _by_name(PaperTable, "A file of workflow/tables"),
    }
    return {
        name: json.dumps({"$schema": DIALECT} | schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in found.items()
    }


def outdated(folder: Path) -> list[str]:
    """The schemas in ``folder`` that are missing or differ from the models."""
    return [
        name
        for name, text in schemas().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]

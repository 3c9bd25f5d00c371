"""docs/manifests.md: the settings to copy are valid, complete, and mean what their comments say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.configuration.presence import missing_data


@pytest.fixture
def settings(repository: Path) -> dict[str, Any]:
    text = (repository / "docs" / "manifests.md").read_text(encoding="utf-8")
    section = text.split("### Settings to copy")[1]
    found: dict[str, Any] = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)[0])
    return found


def test_they_load_and_lack_nothing_but_the_files(settings: dict[str, Any], planned: Any) -> None:
    plan = planned(settings)
    for name in settings["datasets"]:
        problems = missing_data(name, plan.configuration.datasets[name])
        assert problems, name
        assert all("does not exist" in problem for problem in problems), problems


def test_every_format_is_there_or_in_the_configuration(settings: dict[str, Any], planned: Any) -> None:
    shown = {dataset.format for dataset in planned(settings).configuration.datasets.values()}
    assert shown == set(FORMATS)


def test_every_annotation_named_is_one_that_the_importer_reads(settings: dict[str, Any], repository: Path) -> None:
    importers = "".join(path.read_text() for path in sorted((repository / "pipeline_lib" / "manifests").glob("*.py")))
    for name, dataset in settings["datasets"].items():
        for key in dataset.get("annotations", {}):
            if dataset["format"] != "table" and key not in ("train", "validation"):
                stem = key.removesuffix("_train").removesuffix("_validation")
                assert re.search(rf"[\"']{key}[\"']|[\"']{stem}_", importers), (name, key)


def test_the_reduced_sets_have_the_published_sizes(settings: dict[str, Any]) -> None:
    mini = settings["datasets"]["mini_kinetics200"]["filter"]
    assert (200 * mini["per_class"]["train"], 200 * mini["per_class"]["validation"]) == (80_000, 5_000)
    assert settings["datasets"]["k400_mini"]["filter"]["total"]["train"] == 60_000

"""Single values over all files: dotted keys of ``--set`` and of Snakemake's ``--config``, typed by the schema."""

import json
from pathlib import Path
from typing import Any

import pytest
from snakemake.cli import parse_config

from pipeline_lib.__main__ import main
from pipeline_lib.configuration.settings import of_snakemake
from pipeline_lib.errors import UserError
from pipeline_lib.planning.plan import load_plan

WEIGHT = "experiments.d3d_demo.objective.weight"


def test_a_dotted_key_of_the_commands_and_of_snakemake_is_the_same(repository: Path) -> None:
    settings = [f"{WEIGHT}=10", "experiments.d3d_demo.seeds=[0, 1]", "output=2024"]
    by_set = load_plan(repository, settings=settings).configuration
    experiment = by_set.experiments["d3d_demo"]
    # The schema has a number, a list of whole numbers and a text there.
    assert (experiment.objective.weight, experiment.seeds, by_set.output) == (10.0, [0, 1], "2024")
    # As Snakemake itself reads its command line: one key `set`, or its own nested values, whose types it loses.
    for words in (
        [f"set={settings[0]} {settings[1]} {settings[2]}"],
        ["experiments={'d3d_demo': {'objective': {'weight': 10}, 'seeds': [0, 1]}}", "output=2024"],
    ):
        assert load_plan(repository, (), parse_config(words)).configuration == by_set
    # It hands its values on to the jobs of a cluster as text; that is read alike.
    assert of_snakemake({"set": f"a.b=[1, 2] {WEIGHT}=10 c=two words"}) == (
        {},
        ["a.b=[1, 2]", f"{WEIGHT}=10", "c=two words"],
    )


def test_settings_go_over_overlays_and_the_last_one_counts(repository: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "my.yaml"
    overlay.write_text("experiments: {d3d_demo: {objective: {weight: 3}}}")
    plan = load_plan(repository, [overlay], {"set": f"{WEIGHT}=4"}, [f"{WEIGHT}=5", f"{WEIGHT}=6"])
    assert plan.configuration.experiments["d3d_demo"].objective.weight == 6.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "experiments.d3d_demo.objective.wieght=1",
            "d3d_demo.objective.wieght: unknown key. Did you mean `weight`?",
        ),
        ("experiments.d3d_dem.objective.weight=1", "there is no `d3d_dem` in experiments. Did you mean `d3d_demo`?"),
        ("frame_formats.short64_native.short_side=1", "short64_native.short_side: the value 1 is not valid"),
        (f"{WEIGHT}=heavy", f"--set: {WEIGHT}: the value 'heavy' is not valid"),
        (
            "frame_formats.short64_native.short_side=1",
            "frame_formats.short64_native.short_side: the value 1 is not valid",
        ),
        ("trial", "write KEY=VALUE"),
        ("experiments..seeds=[1]", "write KEY=VALUE"),
        ("trial=[1", "neither JSON nor YAML"),
    ],
)
def test_a_wrong_setting_is_one_message(repository: Path, setting: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_plan(repository, settings=[setting])
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_commands_that_read_a_configuration_take_settings(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiments", "d3d_demo", "--json", "--project", str(repository)]
    assert main([*words, "--set", "experiments.d3d_demo.seeds=[0, 7]", "experiments.d3d_demo.recipe=d3d"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["seeds"], entry["recipe"]) == ([0, 7], "d3d")
    commands: list[tuple[Any, ...]] = [("tables",), ("plan",), ("results", "demo"), ("download", "x")]
    for command in commands:
        assert main([*command, "--project", str(repository), "--set", "trail=0.1"]) == 2
        assert "--set: trail: unknown key. Did you mean `trial`?" in capsys.readouterr().err

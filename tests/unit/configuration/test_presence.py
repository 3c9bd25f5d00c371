"""A target whose data do not exist: one message with every key, what was looked for where, and the document."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.configuration.presence import DOCUMENT, check_data, missing_data
from pipeline_lib.errors import UserError


def message(plan: Any, target: str) -> str:
    with pytest.raises(UserError) as problem:
        check_data(f"The target {target}", plan.datasets_behind(target), plan.configuration.datasets)
    return str(problem.value)


def test_without_configuration_every_key_is_named(planned: Any) -> None:
    text = message(planned(), "distill_k400")
    assert text.startswith("The target distill_k400 needs data")
    for key in (
        "datasets.kinetics400.annotations.train",
        "datasets.kinetics400.annotations.validation",
        "datasets.kinetics400.videos",
    ):
        assert f"  {key} is " in text
    assert DOCUMENT in text
    assert "--configfile" in text
    assert "kinetics600" not in text


def test_paths_that_do_not_exist_are_shown_as_they_were_looked_for(planned: Any, tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_text("label,youtube_id,time_start,time_end,split\n")
    lists = {"train": str(train), "validation": "lists/gone.csv"}
    overlay = {"datasets": {"kinetics400": {"annotations": lists, "videos": ["no/such/folder"]}}}
    text = message(planned(overlay), "distill_k400")
    assert "annotations.train" not in text
    assert f"'lists/gone.csv': looked for {Path.cwd() / 'lists/gone.csv'}, which does not exist" in text
    assert f"the folder 'no/such/folder': looked for {Path.cwd() / 'no/such/folder'}, which does not exist" in text


def test_a_fine_tuning_asks_for_both_data_sets(planned: Any) -> None:
    text = message(planned(), "finetune_hmdb51")
    assert "datasets.hmdb51.annotations.splits is not set" in text
    assert "datasets.kinetics400.videos is empty" in text


def test_a_list_that_reduces_a_data_set_has_to_be_there(planned: Any) -> None:
    overlay = {
        "targets": {"mine": {"description": "", "experiments": ["i3d_mini"]}},
        "datasets": {"mini_kinetics200": {"filter": {"ids": "published.txt"}}},
    }
    text = message(planned(overlay), "mine")
    assert f"datasets.mini_kinetics200.filter.ids is 'published.txt': looked for {Path.cwd()}" in text


def test_mini_kinetics_needs_no_list_and_october_2018_asks_for_its_own(planned: Any) -> None:
    datasets = planned().configuration.datasets
    assert not [problem for problem in missing_data("m", datasets["mini_kinetics200"]) if "filter" in problem]
    (problem,) = [p for p in missing_data("o", datasets["kinetics400_october2018"]) if "filter" in p]
    assert problem.startswith("datasets.o.filter.ids is 'kinetics400_october2018.txt': looked for ")
    # A target that does not name it does not ask for it.
    assert "october" not in message(planned(), "distill_k400")


def test_generated_data_are_always_there(planned: Any) -> None:
    plan = planned()
    check_data("The target demo", plan.datasets_behind("demo"), plan.configuration.datasets)


def test_the_document_has_the_section_that_the_message_names(repository: Path) -> None:
    path, _, section = DOCUMENT.partition(" (section “")
    headings = [line.lstrip("# ") for line in (repository / path).read_text().splitlines() if line.startswith("#")]
    assert section.removesuffix("”)") in headings


def test_snakemake_ends_with_that_message_and_no_traceback(repository: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "distill_k400"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    text = outcome.stdout + outcome.stderr
    assert outcome.returncode != 0
    assert "datasets.kinetics400.annotations.train is not set" in text
    assert DOCUMENT in text
    assert "Traceback" not in text


def test_each_format_names_its_own_lists(planned: Any) -> None:
    for format, keys in (("ava", ("train", "validation", "actions")), ("jhmdb", ("boxes",)), ("sports1m", ("train",))):
        plan = planned({"datasets": {"kinetics400": {"format": format, "annotations": {}}}})
        text = message(plan, "distill_k400")
        assert all(f"datasets.kinetics400.annotations.{key} is not set: the path of " in text for key in keys)


def test_a_trusted_list_needs_no_videos(planned: Any, tmp_path: Path) -> None:
    lists = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation")}
    for path in lists.values():
        Path(path).touch()
    plan = planned({"datasets": {"kinetics400": {"annotations": lists, "videos": [], "probe": "none"}}})
    check_data("The target distill_k400", ["kinetics400"], plan.configuration.datasets)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("output/experiments/d3d_demo/4-0/weights.safetensors", "There is no run d3d_demo/4-0"),
        ("output/evaluations/rgb_rgb_demo/1-7/two_clips/metrics.json", "There is no run rgb_rgb_demo/1-7"),
        ("download", "The target download has nothing to fetch"),
    ],
)
def test_a_problem_in_an_input_function_is_one_message(repository: Path, wanted: str, message: str) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", wanted],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 1
    assert outcome.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in outcome.stderr and "Exception" not in outcome.stderr


def test_the_targets_that_people_ask_for_are_listed_and_experiments_are_rules_too(
    repository: Path, planned: Any
) -> None:
    def listed(option: str) -> dict[str, str]:
        command = [sys.executable, "-m", "snakemake", option]
        outcome = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
        lines = (line for line in outcome.stdout.splitlines() if " (" in line)
        return dict(line.removesuffix(")").split(" (", 1) for line in lines)

    plan = planned()
    targets = listed("--list-target-rules")
    # Those of workflow/targets.yaml, and the papers' tables of which something can be run.
    assert set(targets) == {"download", "evaluate", "report", *plan.targets}
    assert 35 < len(targets) < 70
    for name, entry in plan.targets.items():
        assert targets[name] == entry.description.strip()
    rules = listed("--list-rules")
    for name, experiment in plan.configuration.experiments.items():
        assert rules[name] == experiment.description.strip()

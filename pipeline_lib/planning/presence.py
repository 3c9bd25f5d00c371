"""Is the data there that a target needs? Said before anything runs, in one message."""

from collections.abc import Iterable
from pathlib import Path

from pipeline_lib.configuration.formats import REQUIRED_LISTS
from pipeline_lib.errors import UserError
from pipeline_lib.planning.plan import Plan

DOCUMENT = "docs/configuration.md (section “Your own data”)"


def missing_data(plan: Plan, dataset: str) -> list[str]:
    """What keeps a data set from being read: one line a key, with what was looked for and where."""
    section = plan.configuration.datasets[dataset]
    if section.format == "generated":
        return []
    problems: list[str] = []
    key = f"datasets.{dataset}.annotations"
    required = REQUIRED_LISTS[section.format]
    for name in dict.fromkeys([*required, *section.annotations]):
        value = section.annotations.get(name)
        if value is None:
            if name in required:
                problems.append(f"{key}.{name} is not set: the path of {required[name]}")
        elif not Path(value).exists():
            problems.append(f"{key}.{name} is {value!r}: looked for {Path(value).absolute()}, which does not exist")
    for name, value in (("ids", section.filter.ids), ("classes", section.filter.classes)):
        if value is not None and not Path(value).is_file():
            place = f"looked for {Path(value).absolute()}, which does not exist"
            problems.append(f"datasets.{dataset}.filter.{name} is {value!r}: {place}")
    key = f"datasets.{dataset}.videos"
    # A list that is trusted needs no files.
    if not section.videos and section.probe != "none":
        problems.append(f"{key} is empty: the folders that hold the videos (flat, or a folder per class)")
    problems += [
        f"{key} has {value!r}: looked for the folder {Path(value).absolute()}, which does not exist"
        for value in section.videos
        if not Path(value).is_dir()
    ]
    return problems


def check_data(plan: Plan, wanted: str, datasets: Iterable[str]) -> None:
    """Refuse to plan what cannot run.

    Args:
        plan: the jobs of the configuration.
        wanted: the target or rule that needs the data, for the message.
        datasets: names of the data sets.

    Raises:
        UserError: lists or folders are not configured, or do not exist.
    """
    problems = [problem for dataset in datasets for problem in missing_data(plan, dataset)]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(
            f"{wanted} needs data that are not there:\n{lines}\n"
            "Set these keys in config.yaml, or in a file of your own given after the target: --configfile my.yaml. "
            f"{DOCUMENT} explains each."
        )

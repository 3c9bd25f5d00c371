"""Is the data there that a target needs? Said before anything runs, in one message."""

from collections.abc import Iterable
from pathlib import Path

from pipeline_lib.configuration.plan import Plan
from pipeline_lib.errors import UserError

DOCUMENT = "docs/configuration.md (section “Your own data”)"

# Lists that an importer cannot do without; the folder importer reads the folders themselves.
REQUIRED_LISTS = {"kinetics": ("train", "validation"), "ucf101": ("splits",), "hmdb51": ("splits",)}


def missing_data(plan: Plan, dataset: str) -> list[str]:
    """What keeps a data set from being read: one line a key, with what was looked for and where."""
    section = plan.configuration.datasets[dataset]
    if section.format == "generated":
        return []
    problems: list[str] = []
    key = f"datasets.{dataset}.annotations"
    names = dict.fromkeys([*REQUIRED_LISTS.get(section.format, ()), *section.annotations])
    for name in names:
        value = section.annotations.get(name)
        if value is None:
            problems.append(f"{key}.{name} is not set: the path of the {name} list in the format `{section.format}`")
        elif not Path(value).exists():
            problems.append(f"{key}.{name} is {value!r}: looked for {Path(value).absolute()}, which does not exist")
    key = f"datasets.{dataset}.videos"
    if not section.videos:
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

"""Checks that the data of a target or a manifest exist; one message lists what is missing, before anything runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.errors import UserError

DOCUMENT = "docs/configuration.md (section “Your own data”)"


def missing_data(name: str, dataset: Dataset) -> list[str]:
    """Why a data set cannot be read: one line per key, with what was looked for and where."""
    if dataset.is_generated:
        return []
    key = f"datasets.{name}"

    def absent(value: str) -> str:
        return f"looked for {Path(value).absolute()}, which does not exist"

    format = FORMATS[dataset.format]
    required = format.lists if any(dataset.annotations.values()) else format.lists | format.any_list
    problems = []
    for list_name in dict.fromkeys([*required, *dataset.annotations]):
        value = dataset.annotations.get(list_name)
        if value is None or not value.strip():
            if list_name in required:
                problems.append(f"{key}.annotations.{list_name} is not set: the path of {required[list_name]}")
        elif not Path(value).exists():
            problems.append(f"{key}.annotations.{list_name} is {value!r}: {absent(value)}")
    for list_name, value in (("ids", dataset.filter.ids), ("classes", dataset.filter.classes)):
        if value is not None and not Path(value).is_file():
            problems.append(f"{key}.filter.{list_name} is {value!r}: {absent(value)}")
    # With `probe: none` the list is trusted and needs no files.
    if not dataset.videos and dataset.probe != "none":
        problems.append(f"{key}.videos is empty: the folders that hold the videos (flat, or a folder per class)")
    for folders, values in (("videos", dataset.videos), ("replacements", dataset.replacements)):
        problems += [
            f"{key}.{folders} has the folder {value!r}: {absent(value)}" for value in values if not Path(value).is_dir()
        ]
    return problems


def check_data(wanted: str, names: Iterable[str], datasets: Mapping[str, Dataset]) -> None:
    """Refuse to plan or to read data that do not exist.

    Args:
        wanted: the target or rule that needs the data, for the message.
        names: of the data sets that it needs.
        datasets: the data sets of the configuration by name.

    Raises:
        UserError: lists or folders are not configured, or do not exist.
    """
    problems = [problem for name in names for problem in missing_data(name, datasets[name])]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(
            f"{wanted} needs data that do not exist:\n{lines}\n"
            "Set these keys in config.yaml, or in a file of your own given after the target: --configfile my.yaml. "
            f"{DOCUMENT} explains each, docs/manifests.md each format."
        )

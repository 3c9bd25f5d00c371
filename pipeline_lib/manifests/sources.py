"""Where a data set's annotations and videos lie, and one clear message where they do not."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.formats import REQUIRED_LISTS
from pipeline_lib.errors import UserError

DOCUMENT = "docs/manifests.md"


def check_sources(name: str, dataset: Dataset) -> None:
    """Check that everything that the configuration must name is named and exists.

    Args:
        name: the data set's key under ``datasets``.
        dataset: its configuration.

    Raises:
        UserError: one message with every key that is not set or whose path does not exist, what was looked for
            there, and the document that explains it.
    """
    problems: list[str] = []
    required = REQUIRED_LISTS[dataset.format]
    for key in [*required, *(key for key in dataset.annotations if key not in required)]:
        path = dataset.annotations.get(key)
        wanted = required.get(key, "an annotation file")
        full = f"datasets.{name}.annotations.{key}"
        if path is None or not path.strip():
            if key in required:
                problems.append(f"{full} is not set; it shall be the path of {wanted}")
        elif not Path(path).exists():
            problems.append(f"{full}: {path} does not exist (looked for {wanted} at {Path(path).absolute()})")
    if dataset.format == "table" and not any(dataset.annotations.values()):
        problems.append(
            f"datasets.{name}.annotations.train is not set; it shall be the path of a CSV with path,label[,subset]"
        )
    # A list that is trusted needs no files (probe: none without video folders).
    if not dataset.videos and dataset.probe != "none":
        problems.append(f"datasets.{name}.videos is not set; it shall list the folders that hold the videos")
    for key in ("videos", "replacements"):
        for index, folder in enumerate(getattr(dataset, key)):
            if not Path(folder).is_dir():
                problems.append(
                    f"datasets.{name}.{key}[{index}]: {folder} is no folder (looked for videos in "
                    f"{Path(folder).absolute()})"
                )
    for key in ("ids", "classes"):
        path = getattr(dataset.filter, key)
        if path is not None and not Path(path).is_file():
            problems.append(f"datasets.{name}.filter.{key}: {path} does not exist (looked at {Path(path).absolute()})")
    if problems:
        raise UserError(
            f"the data set {name} (format {dataset.format}) cannot be read:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + f"\nSet the keys in config.yaml or in an overlay (--configfile mine.yaml); {DOCUMENT} explains each one."
        )


def sniff_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV with a header, with their line numbers.

    Raises:
        UserError: the file is no text, or a column is missing; the message names the columns found.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            found = [column.strip() for column in reader.fieldnames or []]
            absent = [column for column in columns if column not in found]
            if absent:
                raise UserError(
                    f"{path}: column(s) {', '.join(absent)} are missing; found {', '.join(found) or 'no header'}. "
                    f"{DOCUMENT} shows the format."
                )
            reader.fieldnames = found
            for row in reader:
                yield reader.line_num, {key: (value or "").strip() for key, value in row.items() if key is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no readable CSV ({error}); {DOCUMENT} shows the format.") from error


def source_digests(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each annotation file, by its name (its folder does not matter)."""
    return {path.name: file_digest(path) for path in paths}


def annotation(dataset: Dataset, key: str) -> Path:
    """Path of one annotation list, which ``check_sources`` has found to exist."""
    path = dataset.annotations[key]
    if path is None:
        raise UserError(f"annotations.{key} is not set; {DOCUMENT} says what it shall name.")
    return Path(path)


def number(text: str, path: Path, line: int, column: str) -> float:
    """A number in an annotation file.

    Raises:
        UserError: it is none; the message names file, line and column.
    """
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{path}:{line}: {column} is {text!r}, not a number.") from None

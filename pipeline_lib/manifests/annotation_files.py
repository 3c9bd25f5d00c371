"""Where a data set's annotations and videos lie, and one message that lists everything that is not there."""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.text_files import csv_lines, read_lines

DOCUMENT = "docs/manifests.md"
CLASS_LIST = "labels"
"""The key under ``annotations`` of an optional list of classes."""
SUBSET_NAMES = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("val", "valid", "validate", "validation"), "validation"
)
"""What annotations call the two lists → how they are called here."""


def sniff_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV with a header, with their line numbers.

    Raises:
        UserError: the file is not text, or a column is missing; the message names the columns found.
    """
    try:
        reader = csv.DictReader(csv_lines(path))
        found = [column.strip() for column in reader.fieldnames or []]
        absent = [column for column in columns if column not in found]
        if absent:
            raise UserError(
                f"{path}: column(s) {', '.join(absent)} are missing; found {', '.join(found) or 'no header'}. "
                f"{DOCUMENT} shows the format."
            )
        reader.fieldnames = found
        for row in reader:
            cells = {key: (value or "").strip() for key, value in row.items() if key is not None}
            # Spreadsheets leave empty rows behind the last one.
            if any(cells.values()):
                yield reader.line_num, cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV ({error}); {DOCUMENT} shows the format.") from error


def named_sources(paths: Sequence[Path]) -> dict[str, Path]:
    """Annotation files by the names under which a manifest records them.

    A unique name stands alone, because folders differ between machines. Files of the same name get their folder's name
    in front, and a number behind if that is not enough.
    """
    distinct = list(dict.fromkeys(paths))
    times = Counter(path.name for path in distinct)
    result: dict[str, Path] = {}
    for path in distinct:
        stem = name = path.name if times[path.name] == 1 else f"{path.parent.name}/{path.name}"
        number = 1
        while name in result:
            number += 1
            name = f"{stem} ({number})"
        result[name] = path
    return result


def source_digests(sources: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each annotation file, by its recorded name."""
    return {name: file_digest(path) for name, path in sources.items()}


def annotation(dataset: Dataset, key: str) -> Path:
    """Path of one annotation list, which ``check_data`` has found to exist."""
    path = dataset.annotations[key]
    if path is None:
        raise UserError(f"annotations.{key} is not set; {DOCUMENT} says what it must name.")
    return Path(path)


def class_list(dataset: Dataset) -> list[str] | None:
    """The classes that ``annotations.labels`` lists, one a line in the order of the file; None where it is not set.

    Raises:
        UserError: the file is not text or is empty.
    """
    if not dataset.annotations.get(CLASS_LIST):
        return None
    path = annotation(dataset, CLASS_LIST)
    try:
        classes = read_lines(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file; it must have one class name a line.") from error
    if not classes:
        raise UserError(f"{path} lists no class; it must have one class name a line.")
    return classes


def number(text: str, path: Path, line: int, column: str) -> float:
    """A finite number in an annotation file.

    Raises:
        UserError: it is not a number, or is infinite or nan; the message names file, line and column.
    """
    try:
        return finite(text)
    except ValueError:
        raise UserError(f"{path}:{line}: {column} is {text!r:.200}, not a number.") from None


def finite(value: Any) -> float:
    """A value as a finite number.

    Raises:
        ValueError: it is not a number, or is infinite or nan.
        TypeError: it is neither a number nor a text.
    """
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{value!r:.40} is not a finite number")
    return number

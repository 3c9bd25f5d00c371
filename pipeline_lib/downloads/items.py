"""What a download consists of: one item per video or archive, from a list of URLs or a template with the id."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pipeline_lib.configuration.download import Download
from pipeline_lib.errors import UserError

# The name of a clip in CVDF's copies of Kinetics and in the crawlers' trees.
CLIP_PATH = "{id}_{start:06d}_{end:06d}.mp4"
WATCH_PAGE = "https://www.youtube.com/watch?v={id}"


@dataclass(frozen=True)
class Item:
    """One thing to fetch.

    Attributes:
        key: its name in the ledger: the path below the destination.
        url: where it is.
        path: where it goes below the destination, relative, without ``..``.
        start: begin of the annotated interval in seconds, or None.
        end: end of the annotated interval in seconds, or None.
        sha256: expected digest (64 hexadecimal digits), or None.
        md5: expected digest (32 hexadecimal digits), or None.
        size: expected bytes, or None.
    """

    key: str
    url: str
    path: PurePosixPath
    start: float | None = None
    end: float | None = None
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None


def safe_path(text: str, where: str) -> PurePosixPath:
    """A relative path that stays below the folder that it is joined to.

    Raises:
        UserError: it is empty, absolute, climbs with ``..``, or holds a NUL or a backslash.
    """
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in text or "\\" in text:
        raise UserError(f"{where}: the path {text!r} is refused: name a file below the destination.")
    return path


def _check_url(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"{where}: {url!r} is no URL: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"{where}: {url!r} is no http or https URL.")
    return url


def listed_items(text: str, where: str) -> list[Item]:
    """Items of a list of URLs: a line each (``#`` begins a comment), or a CSV with a column ``url``.

    Raises:
        UserError: a line is no URL, a path is unsafe, or a size is no number.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"{where}: the list of URLs is empty.")
    header = next(csv.reader([lines[0]]))
    rows: Iterable[Mapping[str, str | None]]
    if "url" in header:
        rows = csv.DictReader(io.StringIO("\n".join(lines)), skipinitialspace=True)
    else:
        rows = ({"url": line.strip()} for line in lines)
    items = []
    for number, row in enumerate(rows, start=1):
        place = f"{where}, entry {number}"
        url = _check_url((row.get("url") or "").strip(), place)
        name = row.get("path") or unquote(PurePosixPath(urlsplit(url).path).name)
        path = safe_path(name, place)
        size = row.get("size") or None
        if size is not None and not size.isdigit():
            raise UserError(f"{place}: size {size!r} is no number of bytes.")
        items.append(
            Item(
                key=str(path),
                url=url,
                path=path,
                sha256=(row.get("sha256") or "").lower() or None,
                md5=(row.get("md5") or "").lower() or None,
                size=None if size is None else int(size),
            )
        )
    return items


def _annotated(path: Path) -> Iterator[dict[str, Any]]:
    """The fields of each row of an annotation file, for the templates."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            id_column = next((name for name in ("youtube_id", "id") if name in columns), None)
            if id_column is None:
                raise UserError(f"{path}: no column `youtube_id` or `id`; it has {', '.join(columns) or 'none'}.")
            for row in reader:
                fields: dict[str, Any] = {
                    "id": row[id_column],
                    "label": row.get("label") or "",
                    "split": row.get("split") or path.stem,
                }
                for field, column in (("start", "time_start"), ("end", "time_end")):
                    if row.get(column):
                        try:
                            seconds = float(row[column])
                        except ValueError:
                            raise UserError(
                                f"{path}, line {reader.line_num}: {column} {row[column]!r} is no number of seconds."
                            ) from None
                        fields[field] = int(seconds) if seconds.is_integer() else seconds
                yield fields
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such annotation file (key `annotations` of the download).") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: the annotation file cannot be read: {error}.") from error


def _fill(template: str, fields: Mapping[str, Any], key: str) -> str:
    try:
        return template.format(**fields)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UserError(
            f"The download's `{key}` {template!r} cannot be filled for {fields['id']!r} ({error}); "
            f"its fields are {', '.join(fields)}."
        ) from error


def annotated_items(download: Download) -> list[Item]:
    """Items of a template, one per row of the annotations.

    Raises:
        UserError: an annotation file is missing or malformed, or a template names a field that a row has not.
    """
    template = download.template or WATCH_PAGE
    items = []
    for annotation in download.annotations:
        for fields in _annotated(Path(annotation)):
            # Ids and labels go into the URL as data: a space or a slash in them does not change its structure.
            quoted = fields | {name: quote(fields[name], safe="") for name in ("id", "label", "split")}
            url = _check_url(_fill(template, quoted, "template"), annotation)
            whole = "start" not in fields or "end" not in fields
            name = _fill(download.path or ("{id}.mp4" if whole else CLIP_PATH), fields, "path")
            path = safe_path(name, annotation)
            items.append(Item(str(path), url, path, fields.get("start"), fields.get("end")))
    return items


def distinct(items: Iterable[Item]) -> list[Item]:
    """The items in order, each path once.

    Raises:
        UserError: two different URLs would write one file.
    """
    found: dict[str, Item] = {}
    for item in items:
        other = found.setdefault(item.key, item)
        if other.url != item.url:
            raise UserError(
                f"{item.url} and {other.url} would both become {item.key}: give them a `path` each (a column of the "
                "list, or the template `path` of the download)."
            )
    return list(found.values())

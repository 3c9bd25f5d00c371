"""What a download consists of: one item per video or archive, from a list of URLs or a template with the id."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pipeline_lib.configuration.download import Download
from pipeline_lib.downloads.session import FailedError, relative_path
from pipeline_lib.errors import UserError

# A video's file name in CVDF's copies of Kinetics and in the crawlers' folders.
CLIP_PATH = "{id}_{start:06d}_{end:06d}.mp4"
WATCH_PAGE = "https://www.youtube.com/watch?v={id}"


@dataclass(frozen=True)
class Item:
    """One thing to fetch.

    Attributes:
        path: its place below the destination; also its key in the ledger.
        url: its address.
        times: ``start`` and ``end`` of the annotated interval in seconds, if they are known.
        expected: ``sha256`` and ``md5`` (hexadecimal) and ``size`` (bytes), if the list has them.
    """

    path: PurePosixPath
    url: str
    times: dict[str, float] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{self.url!r:.200} is not an http or https URL")


def _listed(row: dict[str, str]) -> Item:
    url = (row["url"] or "").strip()
    expected = {name: value.lower() for name in ("sha256", "md5", "size") if (value := row.get(name))}
    if not expected.get("size", "0").isdecimal():
        raise ValueError(f"size {expected['size']!r:.200} is not a number of bytes")
    return Item(relative_path(row.get("path") or unquote(urlsplit(url).path.rpartition("/")[2])), url, {}, expected)


def _annotated(row: dict[str, str], split: str, download: Download) -> Item:
    id = row.get("youtube_id") or row.get("id")
    if not id:
        raise ValueError(f"no column `youtube_id` or `id`, or nothing in it; it has {', '.join(map(str, row))}")
    texts = {"id": id, "label": row.get("label") or "", "split": row.get("split") or split}
    times: dict[str, float] = {}
    for name in ("start", "end"):
        if text := row.get(f"time_{name}"):
            times[name] = int(float(text)) if float(text).is_integer() else float(text)
    # Ids and labels are quoted, so that a space or a slash in them does not change the URL's structure.
    quoted = {name: quote(text, safe="") for name, text in texts.items()}
    path = download.path or (CLIP_PATH if len(times) == 2 else "{id}.mp4")
    template, fields = path, texts | times
    try:
        path = path.format(**fields)
        template, fields = download.template or WATCH_PAGE, quoted | times
        return Item(relative_path(path), template.format(**fields), times)
    except (LookupError, AttributeError) as error:
        raise ValueError(f"{template!r} cannot be filled ({error}); its fields are {', '.join(fields)}") from error


def read_items(download: Download, read_text: Callable[[str], str]) -> dict[str, Item]:
    """All items of a download by their paths, in the order of the lists.

    Args:
        download: what to fetch.
        read_text: gives the text of a list by its path or URL.

    Raises:
        UserError: a list or annotation file is missing or malformed, a path would lie outside the destination, or
            two different URLs would write one file.
    """
    found: dict[str, Item] = {}
    for source in download.annotations if download.urls is None else [download.urls]:
        lines, place = read_text(source).splitlines(), source
        rows: Any = csv.DictReader(lines)
        if download.urls is not None:
            lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
            is_table = "url" in next(csv.reader(lines), [])
            rows = csv.DictReader(lines, skipinitialspace=True) if is_table else ({"url": line} for line in lines)
        try:
            for number, row in enumerate(rows, start=1):
                place = f"{source}, entry {number}"
                item = _annotated(row, Path(source).stem, download) if download.urls is None else _listed(row)
                if (other := found.setdefault(str(item.path), item)).url != item.url:
                    raise ValueError(f"{item.url} and {other.url} would both become {item.path}: give each a `path`")
        except (ValueError, FailedError, csv.Error) as error:
            raise UserError(f"{place}: {error}.") from error
    if not found:
        raise UserError(f"{download.urls or ', '.join(download.annotations)}: the list is empty.")
    return found

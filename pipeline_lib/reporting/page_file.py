"""The report's file: its record holds the digest of the whole page, in which the digest's own place is left empty."""

import hashlib
from pathlib import Path

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.artefacts.records import Record
from pipeline_lib.artefacts.sealing import DamageError, damage_named

_KEY = "page"
_EMPTY = "0" * 64


def with_placeholder(record: Record) -> Record:
    """A page's record, with an empty place for the page's digest."""
    return record | {_KEY: _EMPTY}


def _place(content: bytes) -> int:
    """Where the digest lies."""
    mark = f'"{_KEY}": "'.encode()
    return content.rindex(mark) + len(mark)


def _digest(content: bytes, place: int) -> bytes:
    return hashlib.sha256(content[:place] + _EMPTY.encode() + content[place + len(_EMPTY) :]).hexdigest().encode()


def write_page(path: Path, page: str) -> None:
    """Write a page whose record has a placeholder, atomically."""
    content = page.encode()
    place = _place(content)
    write_bytes(path, content[:place] + _digest(content, place) + content[place + len(_EMPTY) :])


def check_page(path: Path) -> None:
    """Check that a page is as it was written.

    Raises:
        UserError: it is missing.
        DamageError: it is not.
    """
    with damage_named(path, "the target that shows it has not run"):
        content = path.read_bytes()
        place = _place(content)
    if content[place : place + len(_EMPTY)] != _digest(content, place):
        raise DamageError(path, "the page does not agree with its digest")

"""Work in progress that survives a kill and a power cut: one line for each finished item, their bytes in one blob.

An HDF5 file that was open at a kill may be unreadable. An append-only file loses nothing that was flushed, and the
digest in each line shows what a power cut has damaged.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from pipeline_lib.artefacts.atomic import named_faults, write_bytes
from pipeline_lib.artefacts.digest import canonical_json

SHAPES_NO_ARTEFACT = True

_READ_BYTES = 1 << 22
SYNC_SECONDS = 10.0
"""How often what is appended is written through to the disk: as much work may be lost in a power cut."""


class Entry(NamedTuple):
    """A finished item, as plain data, with the number and the SHA-256 of its bytes in the blob."""

    item: dict[str, Any]
    num_bytes: int
    sha256: str

    def line(self, before: bytes) -> bytes:
        """The entry as a line, which begins with a digest of its own text and of the line before it."""
        text = canonical_json(list(self)).encode()
        return _mark(before, text) + b" " + text + b"\n"


def _mark(before: bytes, text: bytes) -> bytes:
    return hashlib.sha256(before + text).hexdigest()[:16].encode()


def _parsed(line: bytes, before: bytes) -> Entry | None:
    """The entry of a line; None if the line is incomplete, changed or not in its place."""
    mark, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or _mark(before, text[:-1]) != mark:
        return None
    return Entry(*json.loads(text))


def _holds(blob: IO[bytes], entry: Entry) -> bool:
    """Whether the next bytes of the blob are those of an entry."""
    hasher, left = hashlib.sha256(), entry.num_bytes
    while left:
        piece = blob.read(min(left, _READ_BYTES))
        if not piece:
            return False
        hasher.update(piece)
        left -= len(piece)
    return hasher.hexdigest() == entry.sha256


class Journal:
    """The items of an artefact in the making. Use under ``artefact_lock(final)``.

    The digest of the first line covers that of the work's origin (specification, code, inputs), and the digest of each
    further line covers the line before it. So a line of another origin is not accepted, and the work starts again.

    Args:
        final: the finished artefact; the journal lies beside it in ``.{name}.part``.
        origin: digest of what the work is made from.

    Attributes:
        blob: the file with the bytes of all items, one after the other.
        num_bytes: number of bytes of all items.
        entries: all items so far, those of an interrupted run first.
        num_resumed: how many an interrupted run had finished.
    """

    def __init__(self, final: Path, origin: str) -> None:
        self.folder = final.parent / f".{final.name}.part"
        self.blob = self.folder / "blob"
        self._lines = self.folder / "journal"
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.blob, self._lines):
            path.touch()
        self.num_bytes = 0
        self.entries: list[Entry] = []
        self._origin = self._last = origin.encode()
        self._resume()
        self.num_resumed = len(self.entries)
        self._bytes = open(self.blob, "r+b")
        self._journal = open(self._lines, "ab")
        self._synced = time.monotonic()

    def _resume(self) -> None:
        """Read the items up to the first damaged one; cut off the rest."""
        kept = 0
        with open(self._lines, "rb") as lines, open(self.blob, "rb") as blob:
            for line in lines:
                entry = _parsed(line, self._last)
                if entry is None or not _holds(blob, entry):
                    break
                kept += len(line)
                self._last = line
                self.num_bytes += entry.num_bytes
                self.entries.append(entry)
        os.truncate(self._lines, kept)
        os.truncate(self.blob, self.num_bytes)

    def append(self, item: Mapping[str, Any], pieces: Iterable[bytes | memoryview] = ()) -> Entry:
        """Store an item and its bytes; when this returns, a kill of the process does not lose them.

        Raises:
            OSError: the disk is full or refuses; it names the file. The items before stay.
        """
        hasher, size = hashlib.sha256(), 0
        with named_faults(self.blob):
            # Write after the items: an item whose pieces raised an error may have left bytes there.
            self._bytes.seek(self.num_bytes)
            for piece in pieces:
                hasher.update(piece)
                size += self._bytes.write(piece)
            self._bytes.flush()
        entry = Entry(dict(item), size, hasher.hexdigest())
        self._last = entry.line(self._last)
        with named_faults(self._lines):
            self._journal.write(self._last)
            self._journal.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                # Not at every item: what a power cut loses is done again, and the digests say what it has lost.
                os.fsync(self._bytes.fileno())
                os.fsync(self._journal.fileno())
                self._synced = time.monotonic()
        self.num_bytes += size
        self.entries.append(entry)
        return entry

    def forget(self, unwanted: Callable[[Entry], bool]) -> None:
        """Remove entries; entries with bytes stay."""
        self.entries = [entry for entry in self.entries if entry.num_bytes or not unwanted(entry)]
        self._journal.close()
        lines = [self._origin]
        for entry in self.entries:
            lines.append(entry.line(lines[-1]))
        self._last = lines[-1]
        write_bytes(self._lines, b"".join(lines[1:]))
        self._journal = open(self._lines, "ab")

    def remove(self) -> None:
        """Remove the folder: the final artefact is written."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Close the files; they stay for a later run."""
        for file in (self._bytes, self._journal):
            # After a failed write the file tries once more. That error has been raised already.
            with suppress(OSError):
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

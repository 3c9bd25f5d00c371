"""Probes of earlier runs: only new or changed files are probed again, and an interrupted run goes on."""

import errno
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from pipeline_lib.artefacts.sealing import CHECKSUM, is_sealed, sealed
from pipeline_lib.manifests.probing import Probe
from pipeline_lib.plain_data import parse_json

_COMMIT_SECONDS = 2.0
# What the disk refuses; everything else says that the file is damaged, which costs only the probes in it.
_REFUSED = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}


class ProbeCache:
    """A table of probes by path; a probe is valid while the file keeps its size and modification time.

    Use under ``artefact_lock`` of the manifest: SQLite's own locks are left out, since not every file system has them.

    Args:
        path: the SQLite file; made if it does not exist, made anew if it cannot be read.
        origin: identifies the probing code, its options and PyAV's version; probes of another origin are dropped.

    Raises:
        OSError: the disk is full or refuses; it names the file. So do the methods.
    """

    def __init__(self, path: Path, origin: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._origin = path, origin
        with self._named_faults():
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)
        self._committed = time.monotonic()

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        """Make a damaged file anew."""
        if _refusal(error) is not None:
            raise error
        self._connection.close()
        self._path.unlink(missing_ok=True)
        self._open()

    @contextmanager
    def _named_faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            number = _refusal(error)
            if number is None:
                raise
            raise OSError(number, os.strerror(number), str(self._path)) from error

    def _open(self) -> None:
        self._connection = sqlite3.connect(f"file:{quote(str(self._path.absolute()))}?nolock=1", uri=True)
        found = self._connection.execute("PRAGMA quick_check").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(found)
        self._connection.execute("CREATE TABLE IF NOT EXISTS origin (value TEXT)")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS probes (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, probe TEXT)"
        )
        row = self._connection.execute("SELECT value FROM origin").fetchone()
        if row is None or row[0] != self._origin:
            self._connection.execute("DELETE FROM probes")
            self._connection.execute("DELETE FROM origin")
            self._connection.execute("INSERT INTO origin VALUES (?)", (self._origin,))
        self._connection.commit()

    def load(self) -> dict[str, tuple[int, int, Probe]]:
        """All probes: path → (size, modification time in ns, probe); none if the file is damaged."""
        found = {}
        with self._named_faults():
            try:
                for path, size, mtime_ns, text in self._connection.execute(
                    "SELECT path, size, mtime_ns, probe FROM probes"
                ):
                    # A probe in which bits have changed might reject an intact video, so it is not believed.
                    with suppress(ValueError, TypeError, KeyError):
                        value = parse_json(text)
                        if is_sealed(value) and value.pop("file") == [path, size, mtime_ns]:
                            del value[CHECKSUM]
                            found[path] = (size, mtime_ns, Probe(**value))
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)
                return {}
        return found

    def store(self, path: str, size: int, mtime_ns: int, probe: Probe) -> None:
        """Remember a probe. Probes are written to disk every two seconds, so that a kill loses few."""
        text = json.dumps(sealed(probe.to_json() | {"file": [path, size, mtime_ns]}))
        with self._named_faults():
            self._connection.execute("INSERT OR REPLACE INTO probes VALUES (?, ?, ?, ?)", (path, size, mtime_ns, text))
            if time.monotonic() - self._committed > _COMMIT_SECONDS:
                self._connection.commit()
                self._committed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self._named_faults():
                self._connection.commit()
        finally:
            self._connection.close()


def _refusal(error: sqlite3.DatabaseError) -> int | None:
    """The ``errno`` of an error that says something about the disk and not about the file's content."""
    # The lowest eight bits are the primary code (sqlite.org/rescode.html).
    return _REFUSED.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)

"""Probes of earlier runs: only new or changed files are probed again, and an interrupted run goes on."""

import json
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline_lib.artefacts.sealing import CHECKSUM, is_sealed, sealed
from pipeline_lib.manifests.probing import Probe

_COMMIT_SECONDS = 2.0


class ProbeCache:
    """A table of probes by path; a probe is valid while the file keeps its size and modification time.

    Args:
        path: the SQLite file; made if it does not exist, made anew if it cannot be read.
        origin: identifies the probing code, its options and PyAV's version; probes of another origin are dropped.
    """

    def __init__(self, path: Path, origin: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open(path)
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            self._open(path)
        row = self._connection.execute("SELECT value FROM origin").fetchone()
        if row is None or row[0] != origin:
            self._connection.execute("DELETE FROM probes")
            self._connection.execute("DELETE FROM origin")
            self._connection.execute("INSERT INTO origin VALUES (?)", (origin,))
        self._connection.commit()
        self._committed = time.monotonic()

    def _open(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=60)
        found = self._connection.execute("PRAGMA quick_check").fetchone()
        if found != ("ok",):
            self._connection.close()
            raise sqlite3.DatabaseError(found)
        self._connection.execute("CREATE TABLE IF NOT EXISTS origin (value TEXT)")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS probes (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, probe TEXT)"
        )

    def load(self) -> dict[str, tuple[int, int, Probe]]:
        """All probes: path → (size, modification time in ns, probe)."""
        rows = self._connection.execute("SELECT path, size, mtime_ns, probe FROM probes")
        found = {}
        for path, size, mtime_ns, text in rows:
            # A probe in which bits have changed might reject an intact video, so it is not believed.
            with suppress(ValueError, TypeError):
                value = json.loads(text)
                if is_sealed(value) and value.pop("file") == [path, size, mtime_ns]:
                    del value[CHECKSUM]
                    found[path] = (size, mtime_ns, Probe(**value))
        return found

    def store(self, path: str, size: int, mtime_ns: int, probe: Probe) -> None:
        """Remember a probe. Probes are written to disk every two seconds, so that a kill loses few."""
        text = json.dumps(sealed(probe.to_json() | {"file": [path, size, mtime_ns]}))
        self._connection.execute("INSERT OR REPLACE INTO probes VALUES (?, ?, ?, ?)", (path, size, mtime_ns, text))
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            self._connection.commit()
            self._committed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.commit()
        self._connection.close()

"""What became of every item, remembered between runs."""

import json
import os
import threading
from pathlib import Path
from typing import Any


class Ledger:
    """An append-only file of outcomes, a line of JSON each; the last one of a key counts.

    A run that was killed leaves at most a torn last line, which is passed over.

    Args:
        path: the file; it is created with its folder.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.outcomes: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        torn = False
        if path.exists():
            content = path.read_bytes()
            torn = bool(content) and not content.endswith(b"\n")
            for line in content.splitlines():
                try:
                    entry = json.loads(line)
                    self.outcomes[entry["key"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue
        self._file = open(path, "a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def record(self, key: str, status: str, **details: Any) -> None:
        """Note an outcome (``done`` or ``failed``) and flush it to the disk."""
        entry = {"key": key, "status": status, **details}
        with self._lock:
            self.outcomes[key] = entry
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def status(self, key: str) -> str | None:
        """The last outcome of an item, or None."""
        entry = self.outcomes.get(key)
        return None if entry is None else str(entry["status"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

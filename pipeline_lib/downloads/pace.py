"""Rates that several threads keep together, and the disk's last free space."""

import shutil
import threading
import time
from pathlib import Path

from pipeline_lib.downloads.failures import DiskFullError, StoppedError


class Pace:
    """Spends at most ``rate`` units a second over all threads.

    Args:
        rate: units per second; None does not limit.
        stop: ends a wait early.
    """

    def __init__(self, rate: float | None, stop: threading.Event) -> None:
        self.rate, self._stop = rate, stop
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def spend(self, amount: float = 1.0) -> None:
        """Wait until ``amount`` units may be spent.

        Raises:
            StoppedError: the stage ends.
        """
        if self.rate is None:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + amount / self.rate
        if begin > now and self._stop.wait(begin - now):
            raise StoppedError("It was stopped; run the same command again: it goes on from here.")


def require_space(folder: Path, num_bytes: int, reserve: int) -> None:
    """Check that ``num_bytes`` fit beside a reserve.

    Raises:
        DiskFullError: they do not; the message names the folder and both sizes.
    """
    free = shutil.disk_usage(folder).free
    if free - num_bytes < reserve:
        raise DiskFullError(
            f"{folder}: {free / 1e9:.2f} GB are free, {num_bytes / 1e9:.2f} GB are needed and {reserve / 1e9:.2f} GB "
            "are kept free (`minimum_free_gigabytes`). Make room and run the same command again: it goes on from here."
        )

"""What the workers of a download share (settings, connections, rates, disk space), and how an item fails."""

import os
import shutil
import threading
import time
from pathlib import Path, PurePosixPath

import urllib3

from pipeline_lib.configuration.download import Download


class OutcomeError(Exception):
    """Why an item was not fetched; ``status`` says what that means for it."""

    status = "failed"


class FailedError(OutcomeError):
    """This item cannot be fetched; the message is the listed cause. Later runs try it only on request."""


class NotNowError(OutcomeError):
    """The item could not be fetched now (it does not fit on the disk). The others continue; a later run tries again."""

    status = "left"


class RefusedError(OutcomeError):
    """The site refuses this client (too many requests, a check for robots); that says nothing about the item."""

    status = "refused"


class StoppedError(OutcomeError):
    """The stage ends because of a signal or a full disk. Incomplete files stay for the next run."""

    status = "stopped"


class Session:
    """One run of a download.

    Args:
        settings: what to fetch, and at which rates.
        stop: ends every wait and every transfer when it is set.

    Attributes:
        ended: why the stage ends early, or "".
        refusals: how often in a row the site has refused this client.
    """

    def __init__(self, settings: Download, stop: threading.Event) -> None:
        self.settings, self.stop, self.root = settings, stop, Path(settings.destination)
        self.root.mkdir(parents=True, exist_ok=True)
        self.pool = urllib3.PoolManager(maxsize=settings.workers)
        self.rates = {"requests": settings.requests_per_second, "bytes": (settings.megabytes_per_second or 0) * 1e6}
        self._free_at = dict.fromkeys(self.rates, 0.0)
        self._lock = threading.Lock()
        self.ended, self.refusals = "", 0

    def wait(self, seconds: float = 0.0) -> None:
        """Wait; raise StoppedError as soon as the stage ends."""
        if self.stop.wait(max(0.0, seconds)):
            raise StoppedError("It was stopped")

    def spend(self, unit: str, amount: int = 1) -> None:
        """Wait until all workers together may spend ``amount`` more ``requests`` or ``bytes``."""
        rate, now = self.rates[unit], time.monotonic()
        with self._lock:
            begin = max(now, self._free_at[unit])
            self._free_at[unit] = begin + amount / rate if rate else now
        self.wait(begin - now)

    def require_room(self, num_bytes: int = 0) -> None:
        """Check that ``num_bytes`` more fit on the disk without using its reserve.

        Raises:
            StoppedError: the disk is full already.
            FailedError: not even the whole disk could hold so much, so the claimed size is wrong.
            NotNowError: there is no room now.
        """
        disk, reserve = shutil.disk_usage(self.root), int(self.settings.minimum_free_gigabytes * 1e9)
        room = f"{disk.free / 1e9:.2f} GB are free, {reserve / 1e9:.2f} GB are kept free (`minimum_free_gigabytes`)"
        if disk.free < reserve:
            raise StoppedError(f"{self.root}: {room}. Make room")
        if num_bytes > disk.total - reserve:
            raise FailedError(f"it claims {num_bytes} bytes, more than the whole disk of {self.root} can hold")
        if num_bytes > disk.free - reserve:
            raise NotNowError(f"{num_bytes / 1e9:.2f} GB are needed, {room}. Make room")

    def place(self, path: PurePosixPath) -> Path:
        """The final path of an item or an archive's member; its folder is made.

        Raises:
            FailedError: ``path`` leads through a link, which an archive may have made.
        """
        folder = Path(os.path.realpath(self.root)) / path.parent
        if os.path.realpath(folder) != str(folder):
            raise FailedError(f"refused: the folder of {str(path)!r} is reached through a link")
        folder.mkdir(parents=True, exist_ok=True)
        return folder / path.name


def relative_path(text: str) -> PurePosixPath:
    """A relative path that stays below the folder that it is joined to.

    Raises:
        FailedError: it is empty, absolute, climbs with ``..``, or holds a NUL.
    """
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in text:
        raise FailedError(f"refused: the path {text!r} does not name a file below the destination")
    return path

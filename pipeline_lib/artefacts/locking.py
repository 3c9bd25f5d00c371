"""One writer per artefact, even if a killed run left a worker running."""

import errno
import fcntl
import hashlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json

SHAPES_NO_ARTEFACT = True

# What lockf says when somebody else holds the lock (POSIX allows both). Every other error means that there is no lock.
_HELD = (errno.EAGAIN, errno.EACCES)
# A file system without record locks (Lustre without the option flock, some FUSE and 9p mounts, NFS without lockd).
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        held = parse_json(file.read())
        return f"process {held['pid']} on {held['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _take(file: IO[str]) -> bool:
    """Take the lock of a file; False if somebody else holds it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD:
            raise
        return False
    return True


def _local_lock(path: Path) -> Path:
    """Where the lock lies if its own file system has none: in this machine's folder for temporary files."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return Path(tempfile.gettempdir()) / f"pipeline-{os.getuid()}-{name}.lock"


def _opened(path: Path) -> IO[str]:
    """The lock's file, or the one that stands for it if its file system has no locks."""
    file = open(path, "a+", encoding="utf-8")
    try:
        # Only a look: whoever holds the lock is waited for later.
        if _take(file):
            fcntl.lockf(file, fcntl.LOCK_UN)
        return file
    except OSError as error:
        file.close()
        if error.errno not in _WITHOUT_LOCKS:
            raise
        other = _local_lock(path)
        print(
            f"{path.parent}: this file system has no locks ({error.strerror}), so the lock is {other} and holds on "
            "this machine alone. Before you start the same work on another machine, see that it has ended on this one.",
            file=sys.stderr,
            flush=True,
        )
        # Somebody else's link of that name in a folder that all may write to would be followed otherwise.
        descriptor = os.open(other, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        return open(descriptor, "a+", encoding="utf-8")


@contextmanager
def artefact_lock(artefact: Path, wait_seconds: float = 600.0) -> Iterator[None]:
    """Hold the exclusive lock of an artefact while making it.

    ``kill -9`` of Snakemake leaves its running job behind as an orphan, and the next run starts the same
    job again: the second worker waits here until the first has finished or died. The lock is a POSIX record
    lock (``fcntl.lockf``), which the kernel drops with its process and which NFS carries between hosts. Where the file
    system has no such locks, a file in this machine's temporary folder is locked instead, and that is said.

    Args:
        artefact: the final path; the lock lies beside it as ``.{name}.lock``.
        wait_seconds: how long to wait for another holder, seconds.

    Raises:
        UserError: another process still holds the lock after ``wait_seconds``; the message names it.
        OSError: the folder cannot be written.
    """
    path = artefact.parent / f".{artefact.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as file:
        deadline = time.monotonic() + wait_seconds
        announced = False
        while not _take(file):
            if time.monotonic() >= deadline:
                raise UserError(
                    f"{artefact} is being made by {_holder(file)}, which still runs after {wait_seconds:.0f} s. "
                    "Wait for it or end it, then run the same command again."
                )
            if not announced:
                print(f"waiting for {_holder(file)}, which is making {artefact}", file=sys.stderr, flush=True)
                announced = True
            time.sleep(0.2)
        # The name of the holder is for people; on a full disk the lock holds without it.
        with suppress(OSError):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield

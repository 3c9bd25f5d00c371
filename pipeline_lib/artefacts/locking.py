"""One writer per artefact, even if a killed run left a worker running."""

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline_lib.errors import UserError

SHAPES_NO_ARTEFACT = True


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        held = json.loads(file.read())
        return f"process {held['pid']} on {held['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def artefact_lock(artefact: Path, wait_seconds: float = 600.0) -> Iterator[None]:
    """Hold the exclusive lock of an artefact while making it.

    ``kill -9`` of Snakemake leaves its running job behind as an orphan, and the next run starts the same
    job again: the second worker waits here until the first has finished or died. The lock is a POSIX record
    lock (``fcntl.lockf``), which the kernel drops with its process and which NFS carries between hosts.

    Args:
        artefact: the final path; the lock lies beside it as ``.{name}.lock``.
        wait_seconds: how long to wait for another holder, seconds.

    Raises:
        UserError: another process still holds the lock after ``wait_seconds``; the message names it.
    """
    path = artefact.parent / f".{artefact.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        deadline = time.monotonic() + wait_seconds
        announced = False
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise UserError(
                        f"{artefact} is being made by {_holder(file)}, which still runs after {wait_seconds:.0f} s. "
                        "Wait for it or end it, then run the same command again."
                    ) from error
                if not announced:
                    print(f"waiting for {_holder(file)}, which is making {artefact}", file=sys.stderr, flush=True)
                    announced = True
                time.sleep(0.2)
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        yield

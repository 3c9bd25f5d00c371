"""Ctrl-C ends a workflow: Snakemake, its jobs, and what these have started."""

import signal
import threading
import time
from types import FrameType

import psutil

SHAPES_NO_ARTEFACT = True

PATIENCE_SECONDS = 1.0
"""A terminal's Ctrl-C reaches the jobs by itself, so that most have ended after this."""
LIMIT_SECONDS = 20.0
"""A training finishes its step and saves within this; then it is killed, and goes on from its last checkpoint."""


def end_jobs_on_interrupt() -> None:
    """Let SIGINT end the jobs of this process too.

    A SIGINT that reaches Snakemake alone (``kill -INT``, a supervisor) only makes it wait until its jobs are done.
    """
    earlier = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or earlier != signal.default_int_handler:
        return

    def handle(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=_end_jobs, daemon=True).start()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handle)


def jobs_of_this_process() -> list[psutil.Process]:
    """The running commands of this package below this process, and everything below them."""
    found: dict[int, psutil.Process] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            # A cluster's own commands (scancel) have to finish.
            if "pipeline_lib" in child.cmdline():
                found |= {process.pid: process for process in (child, *child.children(recursive=True))}
        except psutil.Error:
            continue
    return list(found.values())


def _end_jobs() -> None:
    start = time.monotonic()
    time.sleep(PATIENCE_SECONDS)
    asked: set[int] = set()
    while True:
        is_late = time.monotonic() - start > LIMIT_SECONDS
        for process in jobs_of_this_process():
            try:
                if is_late:
                    process.kill()
                elif process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
            except psutil.Error:
                continue
        time.sleep(0.2)

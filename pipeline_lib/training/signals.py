"""Requests to stop: signals that a cluster sends before its time limit, and Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 75
"""Exit status after a requested stop: sysexits' EX_TEMPFAIL, "try again later"; a job manager runs the job again."""

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Which signal asked for a stop; 0 for none."""

    def __init__(self) -> None:
        self.signal = 0

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: remember it, and let the running step finish."""
        self.signal = number


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM, SIGINT and SIGUSR1 while the block runs; then restore the earlier handlers."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    earlier = {number: signal.signal(number, request.note) for number in STOPPING}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

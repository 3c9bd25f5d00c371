"""How long each phase of a training takes, measured without stopping the device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = ("data", "forward", "backward", "optimiser", "communication", "checkpoint", "validation")


class PhaseTimes:
    """Seconds per phase.

    On the CPU these are wall times. On a GPU work is asynchronous: pairs of CUDA events are recorded and read when a
    later call finds them finished, so that timing never waits for the device. ``data``, ``communication``,
    ``checkpoint`` and ``validation`` are always wall times, because the host waits for them.

    Args:
        device: where the network runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._events = device.type == "cuda"
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time for a phase."""
        if self._events and name in ("forward", "backward", "optimiser"):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            yield
            end.record()
            self._pending.append((name, begin, end))
            return
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def summary(self) -> dict[str, float]:
        """Seconds per phase so far, rounded to milliseconds."""
        if self._pending:
            self._pending[-1][2].synchronize()
            for name, begin, end in self._pending:
                self.seconds[name] += begin.elapsed_time(end) / 1000.0
            self._pending.clear()
        return {name: round(value, 3) for name, value in self.seconds.items()}

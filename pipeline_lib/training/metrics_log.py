"""What a training says about itself: JSON lines that are part of the artefact, TensorBoard events that are not."""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard events.

    The JSON lines hold no times: two runs of one seed give equal bytes. TensorBoard events carry wall times, and so
    are not part of the reproducible artefact.

    Args:
        path: the JSON lines.
        tensorboard: folder of the events, or None for none.
        size: bytes of the log that the resumed checkpoint knows; what a killed run wrote behind is cut.
        step: the resumed step; later events are hidden by TensorBoard (``purge_step``).
    """

    def __init__(self, path: Path, tensorboard: Path | None, size: int, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, size)
        self._path, self._size, self._pending = path, size, b""
        self._writer: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=step if step else None)  # type: ignore[no-untyped-call]

    def write(self, step: int, values: Mapping[str, float], timed: Mapping[str, float]) -> None:
        """Log one line; ``timed`` (rates, memory) goes to TensorBoard only."""
        # Kept until the next checkpoint: what a killed run wrote behind its checkpoint would be cut anyway, and a disk
        # that is full for a while loses no line.
        self._pending += (json.dumps({"step": step, **values}) + "\n").encode()
        try:
            if self._writer is not None:
                for name, value in {**values, **timed}.items():
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            print(f"TensorBoard events cannot be written ({error}); the training goes on without them", file=sys.stderr)
            self._writer = None

    def size(self) -> int:
        """Bytes of the log, all of them on the disk after this call.

        Raises:
            OSError: the disk is full; the lines are kept for a later call.
        """
        with open(self._path, "r+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(self._pending)
            file.flush()
            os.fsync(file.fileno())
            self._size = file.tell()
        self._pending = b""
        return self._size

    def close(self) -> None:
        """Close the events; lines behind the last checkpoint are dropped, as a kill would drop them."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()


class Means:
    """Sums of named values since the last line, kept on the device so that a step needs no synchronisation."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Count one step's values, scalars in float64."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.count += 1

    def take(self) -> dict[str, float]:
        """The means, and start anew."""
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"sums": {name: float(value) for name, value in self.sums.items()}, "count": self.count}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """From a checkpoint."""
        dtype = torch.float64
        self.sums = {name: torch.tensor(value, dtype=dtype, device=device) for name, value in state["sums"].items()}
        self.count = int(state["count"])

"""What a training says about itself: JSON lines that are part of the artefact, TensorBoard events that are not."""

import json
import os
from collections.abc import Mapping
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
        self._file = open(path, "a", encoding="utf-8")
        self._writer: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=step if step else None)  # type: ignore[no-untyped-call]

    def write(self, step: int, values: Mapping[str, float], timed: Mapping[str, float]) -> None:
        """Log one line; ``timed`` (rates, memory) goes to TensorBoard only."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        if self._writer is not None:
            for name, value in {**values, **timed}.items():
                self._writer.add_scalar(name, value, step)

    def size(self) -> int:
        """Bytes written so far, all of them on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._writer is not None:
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

"""A training's figures: JSON lines that are part of the artefact, and TensorBoard events that are not."""

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.configuration.training import Recipe


def tag(name: str) -> str:
    """The name of a figure in TensorBoard, which groups what has the same first part.

    ``train/`` has the losses and the rate, ``validation/`` what the validation list says, ``speed/`` and ``memory/``
    what the machine does.
    """
    if name.startswith("validation_"):
        return f"validation/{name.removeprefix('validation_')}"
    measured = {"clips_per_second": "speed/clips_per_second", "gigabytes": "memory/gigabytes", "total": "train/loss"}
    return measured.get(name, f"train/{name}")


def peak_gigabytes(device: torch.device) -> float:
    """The most memory that this process has held so far, GiB: the GPU's, or without one the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux counts it in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard events.

    The JSON lines hold no times, so that two runs of one seed give equal bytes. TensorBoard events hold wall times, so
    they are not part of the reproducible artefact.

    Args:
        path: the JSON lines.
        tensorboard: folder of the events, or None for none.
        content: of the log at the resumed checkpoint, which replaces whatever a killed run or a power cut left there.
        step: the resumed step; TensorBoard hides later events (``purge_step``).
    """

    def __init__(self, path: Path, tensorboard: Path | None, content: bytes, step: int) -> None:
        self._path, self.content, self._pending = path, content, b""
        write_bytes(path, content)
        self._writer: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=step if step else None)  # type: ignore[no-untyped-call]

    def write(self, step: int, values: Mapping[str, float], timed: Mapping[str, float]) -> None:
        """Log one line; ``timed`` (rates, memory) goes to TensorBoard only."""
        # Lines are kept until the next checkpoint. What a killed run writes after its checkpoint is cut off anyway, and
        # so a disk that is full for a while loses no line.
        self._pending += (json.dumps({"step": step, **values}) + "\n").encode()
        try:
            if self._writer is not None:
                for name, value in {**values, **timed}.items():
                    self._writer.add_scalar(tag(name), value, step)
        except OSError as error:
            print(f"TensorBoard events cannot be written ({error}); the training goes on without them", file=sys.stderr)
            self._writer = None

    def flush(self) -> bytes:
        """Write all lines to the disk; returns the whole log (a line has some hundred bytes).

        Raises:
            OSError: the disk is full; the lines are kept for a later call.
        """
        content = self.content + self._pending
        write_bytes(self._path, content)
        self.content, self._pending = content, b""
        return content

    def close(self) -> None:
        """Close the events; lines after the last checkpoint are dropped, as after a kill."""
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
        """The means; the sums start again at zero."""
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


class Metrics:
    """The figures of a training while it runs: means over some steps for the log, and rates for its progress line.

    Args:
        recipe: how many steps there are, and how many a line covers.
        label: of the run, for the progress line.
        device: where the losses are summed.
        log: the JSON lines; None in all processes but the first, because only that writes.
        tensorboard: folder of the events.
    """

    def __init__(self, recipe: Recipe, label: str, device: torch.device, log: Path | None, tensorboard: Path) -> None:
        self.recipe, self.label, self.device = recipe, label, device
        self._means = Means()
        self._path, self._tensorboard, self.log = log, tensorboard, b""
        """The JSON lines up to the last checkpoint."""
        self._log: MetricsLog | None = None
        self._progress: Progress | None = None

    @contextmanager
    def shown(self, step: int) -> Iterator[None]:
        """Open log and progress after ``step`` steps; closed behind the block."""
        self._last_time, self._last_step = time.monotonic(), step
        if self._path is None:
            yield
            return
        self._log = MetricsLog(self._path, self._tensorboard, self.log, step)
        try:
            with Progress(self.label, self.recipe.steps, "steps", initial=step) as self._progress:
                yield
        finally:
            self._log.close()

    def add(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Count the losses of a step, scalars in float64."""
        self._means.add(losses)

    def step_done(self, step: int, rate: float) -> None:
        """Show that ``step`` steps are done, the last one with this learning rate; write a line if one is due."""
        note = ""
        if step % self.recipe.log_steps == 0 or step == self.recipe.steps:
            # In every process, because all of them continue from the first one's checkpoint.
            values = {"rate": rate, **self._means.take()}
            if self._log is not None:
                timed = self._rates(step)
                self._log.write(step, values, timed)
                shown = [f"{name} {value:.4g}" for name, value in {**values, **timed}.items()]
                note = " ".join(shown).replace("clips_per_second", "clips/s")
        if self._progress is not None:
            self._progress.advance(1, note)

    def _rates(self, step: int) -> dict[str, float]:
        now = time.monotonic()
        clips = (step - self._last_step) * self.recipe.global_batch
        rates = {
            "clips_per_second": clips / max(now - self._last_time, 1e-9),
            "gigabytes": peak_gigabytes(self.device),
        }
        self._last_time, self._last_step = now, step
        return rates

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log a line with these figures."""
        if self._log is not None:
            self._log.write(step, values, {})

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, in the process that writes; afterwards the lines so far are on the disk.

        Raises:
            OSError: the disk is full; the lines are kept for a later call.
        """
        assert self._log is not None
        self.log = self._log.flush()
        # The checkpoint holds the log itself: its own digest then says whether both are whole, and of one state.
        return {"means": self._means.state(), "log": self.log.decode()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint, before the log is opened."""
        self._means.restore(state["means"], self.device)
        self.log = str(state["log"]).encode()

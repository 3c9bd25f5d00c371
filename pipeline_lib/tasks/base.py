"""A task: what is predicted for a sample, how predictions are stored, and how they are judged.

The trainer, the loader, the stage `evaluate` and the report know only this interface. Everything that belongs to a task
is in its folder: ``task.py`` predicts, ``metrics.py`` judges a file of predictions, ``combination.py`` combines several
files to an ensemble, ``presentation.py`` shows the results.
"""

import importlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from pipeline_lib.artefacts.records import Record
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.protocol_clips import ProtocolClips
from pipeline_lib.tasks.outputs import Forward, VideoOutputs


class PredictionPart(AbstractContextManager["PredictionPart"], Protocol):
    """An unfinished file of predictions, which continues after the videos that an interrupted run had finished.

    Attributes:
        done: ids of the videos that it holds.
        resumed: how many an interrupted run had finished.
    """

    done: set[str]
    resumed: int

    def append(self, id: str, found: VideoOutputs) -> None:
        """Store the predictions for one video; when this returns, a kill of the process does not lose them."""
        ...

    def finish(self, index: ClipIndex, subset: str, record: Record) -> None:
        """Write the final file atomically, with what the index says is true of its videos; remove the part."""
        ...


class Task(Protocol):
    """One task."""

    name: str

    def modalities(self, seen: str) -> tuple[str, ...]:
        """The modalities that a batch must hold: what the network sees, and what the task compares with."""
        ...

    def clips(self, index: ClipIndex, *arguments: Any, **options: Any) -> ProtocolClips:
        """The samples of some videos; the arguments are those of ``ProtocolClips``."""
        ...

    def forward(self, network: nn.Module, seen: str) -> Forward:
        """From a batch of clips to one prediction per clip, on the CPU.

        Args:
            network: in evaluation mode.
            seen: the modality that it sees.
        """
        ...

    def check(self, known: Sequence[str], index: ClipIndex, origin: str) -> None:
        """Refuse videos that a network cannot be judged on.

        Args:
            known: the classes that the network was trained on.
            index: the videos.
            origin: the weights and the data set, for the message.

        Raises:
            UserError: the network was not trained to predict this.
        """
        ...

    def open_part(self, final: Path, origin: str, classes: Sequence[str]) -> PredictionPart:
        """The unfinished file of predictions; ``origin`` is the digest of what it is made from."""
        ...

    def sums(self, index: ClipIndex, found: Iterable[VideoOutputs]) -> dict[str, float]:
        """Figures of a validation during training, summed over videos, by the code that judges a file.

        ``loss`` decides which checkpoint is the best.
        """
        ...


def load_task(name: str) -> Task:
    """A task by its name, which is that of a folder in ``pipeline_lib/tasks``."""
    task: Task = importlib.import_module(f"pipeline_lib.tasks.{name}.task").TASK
    return task

"""Classification: the class, or the classes, of a video, from the logits of its clips."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from pipeline_lib.artefacts.records import Record
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.protocol_clips import ProtocolClips
from pipeline_lib.errors import UserError
from pipeline_lib.tasks.classification.metrics import Evaluation
from pipeline_lib.tasks.classification.scores import (
    Clips,
    LabelledVideo,
    MemoryScores,
    ScoresPart,
)
from pipeline_lib.tasks.outputs import Forward, VideoOutputs


def _columns(found: VideoOutputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First frames, numbers of the crops and logits of a video's clips."""
    starts = np.array([request.start for request in found.requests], dtype=np.int64)
    # The crops of one start follow each other.
    crops = np.arange(len(starts)) % found.num_crops
    return starts, crops.astype(np.int8), torch.stack(list(found.outputs)).numpy()


def _labelled(index: ClipIndex, row: int, subset: str) -> LabelledVideo:
    return LabelledVideo(index.ids[row], subset, tuple(index.classes[label] for label in index.labels[row]))


class ClassificationPart:
    """An unfinished score file."""

    def __init__(self, final: Path, origin: str, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._part = ScoresPart(final, origin, len(classes))
        self.done, self.resumed = self._part.done, self._part.resumed

    def append(self, id: str, found: VideoOutputs) -> None:
        """Keep the logits of one video's clips."""
        self._part.append(id, *_columns(found))

    def finish(self, index: ClipIndex, subset: str, record: Record) -> None:
        """Write the score file."""
        self._part.finish([_labelled(index, row, subset) for row in range(len(index))], self.classes, record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._part.close()


class Classification:
    """See ``Task``."""

    name = "classification"

    def modalities(self, seen: str) -> tuple[str, ...]:
        """Only what the network sees, because a label is no modality."""
        return (seen,)

    def clips(self, index: ClipIndex, *arguments: Any, **options: Any) -> ProtocolClips:
        """The protocol's clips of each video."""
        return ProtocolClips(index, *arguments, **options)

    def forward(self, network: nn.Module, seen: str) -> Forward:
        """Logits (num_classes,) of each clip, float32 on the CPU."""

        def logits(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            found: torch.Tensor = network(batch[seen])
            return found.float().cpu()

        return logits

    def check(self, known: Sequence[str], index: ClipIndex, origin: str) -> None:
        """Refuse classes that the network does not know."""
        unknown = sorted(set(index.classes) - set(known))
        if unknown:
            raise UserError(
                f"{origin}: it was trained on {len(known)} classes; the data set has {unknown[0]!r} ({len(unknown)} "
                "such), which it does not know. The manifest has changed since then: train it again."
            )

    def open_part(self, final: Path, origin: str, classes: Sequence[str]) -> ClassificationPart:
        """An unfinished score file."""
        return ClassificationPart(final, origin, classes)

    def sums(self, index: ClipIndex, found: Iterable[VideoOutputs]) -> dict[str, float]:
        """``loss`` (cross-entropy, nats) and ``top1``, summed over videos; the best label of several counts."""
        rows, columns = [], []
        for one in sorted(found, key=lambda one: index.ids[one.row]):
            rows.append(one.row)
            columns.append(_columns(one))
        if not rows:
            return {"loss": 0.0, "top1": 0.0}
        starts, crops, logits = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        video = np.repeat(np.arange(len(rows), dtype=np.int32), [len(own[0]) for own in columns])
        videos = [_labelled(index, row, "validation") for row in rows]
        evaluation = Evaluation(MemoryScores(videos, index.classes, Clips(video, starts, crops, logits), {}))
        return {"loss": float(evaluation.losses.sum()), "top1": float(evaluation.correct.sum())}


TASK = Classification()

"""Judges a network on the validation list while it trains, on one central clip of each video."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.sampling import VALIDATION, generator
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.training import Recipe
from pipeline_lib.tasks.base import Task
from pipeline_lib.tasks.outputs import video_outputs
from pipeline_lib.training.distribution import Ranks

CENTRAL_CLIP = Protocol(num_clips=1)


class Score(NamedTuple):
    """How good a checkpoint is: the smaller the loss, the better."""

    loss: float
    step: int


class Validation:
    """Judges the network now and then. It changes nothing of the training, not even its random numbers.

    Args:
        index: the videos of the list.
        recipe: how often, how many videos, and the clips' frames and pixels; clips are central and not mirrored.
        task: what the network predicts, and how that is judged, as in the stage ``evaluate``.
        modality: what the network sees.
        seed: the run's; it chooses the videos if ``recipe.validation_videos`` is less than all.
        batch: clips per forward pass.
        ranks: each process judges its share.
        num_workers: decoding processes.
    """

    def __init__(
        self,
        index: ClipIndex,
        recipe: Recipe,
        task: Task,
        modality: str,
        seed: int,
        batch: int,
        ranks: Ranks,
        num_workers: int,
    ) -> None:
        self.index, self.task, self.modality = index, task, modality
        self.ranks, self.num_workers = ranks, num_workers
        self.steps, self.bfloat16 = recipe.validation_steps, recipe.precision == "bfloat16"
        self.score: Score | None = None
        rows = np.sort(generator(seed, VALIDATION, 0).permutation(len(index))[: recipe.validation_videos])
        self.num_videos = len(rows)
        own = rows[ranks.rank :: ranks.num_ranks].tolist()
        self.clips = task.clips(index, CENTRAL_CLIP, recipe.sampling, task.modalities(modality), own, batch)

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether the network is judged after ``step`` steps: every ``validation_steps`` and at the end."""
        return step % self.steps == 0 or step == num_steps

    @torch.no_grad()
    def run(self, module: nn.Module, step: int, device: torch.device) -> dict[str, float]:
        """Judge the network; keeps the score of this step.

        Args:
            module: in eval mode; the task judges its ``network``.
            step: steps done.
            device: where the module is.

        Returns:
            ``validation_loss`` and the task's other figures, means over the videos of all processes.
        """
        mixed = self.bfloat16 and device.type == "cuda"
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
            forward = self.task.forward(module.network, self.modality)  # type: ignore[arg-type]
            sums = self.task.sums(self.index, video_outputs(self.clips, forward, device, self.num_workers))
        total = self.ranks.sum(torch.tensor(list(sums.values()), dtype=torch.float64, device=device))
        values = dict(zip(sums, (total / self.num_videos).tolist(), strict=True))
        self.score = Score(values["loss"], step)
        return {f"validation_{name}": value for name, value in values.items()}

"""Judges a network on the validation list while it trains, on one central clip of each video.

With ``recipe.validation_steps`` the figures may decide which weights are kept. Without it they only draw a curve, from
a small part of the list, so that everybody sees an over-fit network without asking for it.
"""

import hashlib
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

CURVE_CHECKS = 10
"""How often a training is judged for its curve."""
CLIPS_PER_CURVE_VIDEO = 200
"""A curve's part of the list has one video for so many clips of the training. All checks together then judge at most a
twentieth of the clips that are trained on. Decoding and a forward pass are about 40 % of a training's time (measured on
the demo's trainings), so the curve costs at most about a fiftieth of it."""
CURVE_VIDEOS = (8, 256)
"""Fewer videos make no curve (a training this short has none); more are not judged."""


def curve_videos(recipe: Recipe) -> int:
    """How many validation videos a training is judged on for its curve; 0 if it has none.

    A training has none if the recipe says when to validate (``validation_steps``, 0 included), or if it is very short.
    """
    fewest, most = CURVE_VIDEOS
    count = min(most, recipe.steps * recipe.global_batch // CLIPS_PER_CURVE_VIDEO)
    return count if recipe.validation_steps is None and count >= fewest else 0


def judged_rows(index: ClipIndex, recipe: Recipe, seed: int) -> np.ndarray:
    """Rows of the videos that are judged, sorted, the same at every check.

    A curve's videos are those whose ids have the smallest SHA-256, so that every run, seed and machine judges the same
    ones, and the curves of two experiments on one list can be compared.
    """
    if recipe.validation_steps:
        return np.sort(generator(seed, VALIDATION, 0).permutation(len(index))[: recipe.validation_videos])
    ranked = sorted(range(len(index)), key=lambda row: hashlib.sha256(str(index.ids[row]).encode()).digest())
    return np.sort(np.array(ranked[: curve_videos(recipe)], dtype=np.int64))


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
        seed: the run's; it chooses the videos if ``recipe.validation_videos`` is less than all (``judged_rows``).
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
        self.steps = recipe.validation_steps or max(1, recipe.steps // CURVE_CHECKS)
        self.bfloat16 = recipe.precision == "bfloat16"
        self.score: Score | None = None
        rows = judged_rows(index, recipe, seed)
        self.num_videos = len(rows)
        own = rows[ranks.rank :: ranks.num_ranks].tolist()
        self.clips = task.clips(index, CENTRAL_CLIP, recipe.sampling, task.modalities(modality), own, batch)

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether the network is judged after ``step`` steps: every ``steps`` and at the end."""
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

"""How a network does on the validation list while it trains: one central clip of each video."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Sampler

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import ClipReader, RequestedClips, clip_loader
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.sampling import VALIDATION, ClipRequest, generator, uniform_starts
from pipeline_lib.configuration.training import Recipe
from pipeline_lib.training.distribution import Ranks


class Score(NamedTuple):
    """How good a checkpoint is: the smaller the loss, the better."""

    loss: float
    step: int


class _Share(Sampler[list[int]]):
    """One rank's share of some positions, in batches."""

    def __init__(self, num_positions: int, size: int, ranks: Ranks) -> None:
        own = range(ranks.rank, num_positions, ranks.num_ranks)
        self.batches = [list(own[first : first + size]) for first in range(0, len(own), size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class Validation:
    """Looks at the validation list now and then. It changes nothing of the training, its random numbers included.

    Args:
        index: the videos of the list.
        recipe: how often, how many videos, and which frames and pixels; those of a clip are its centre's, not mirrored.
        modality: what the network sees.
        seed: the run's; which videos are looked at where ``recipe.validation_videos`` is less than all.
        batch: clips per forward pass.
        ranks: every process takes its share.
        num_workers: decoding processes.
    """

    def __init__(
        self,
        index: ClipIndex,
        recipe: Recipe,
        modality: str,
        seed: int,
        batch: int,
        ranks: Ranks,
        num_workers: int,
    ) -> None:
        self.index, self.modality, self.ranks, self.num_workers = index, modality, ranks, num_workers
        self.steps, self.bfloat16 = recipe.validation_steps, recipe.precision == "bfloat16"
        self.score: Score | None = None
        rows = np.sort(generator(seed, VALIDATION, 0).permutation(len(index))[: recipe.validation_videos])
        sampling = recipe.sampling
        self.requests = [
            ClipRequest(
                video=int(row),
                start=uniform_starts(1, sampling.num_frames, sampling.stride, int(index.num_frames[row]))[0],
                num_frames=sampling.num_frames,
                stride=sampling.stride,
                crop=sampling.crop,
                short_side=sampling.short_side[0],
                label=index.labels[row][0],
            )
            for row in rows
        ]
        self._share = _Share(len(self.requests), batch, ranks)

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether the list is looked at after ``step`` steps: at every so many, and at the end."""
        return step % self.steps == 0 or step == num_steps

    @torch.no_grad()
    def run(self, module: nn.Module, step: int, device: torch.device) -> dict[str, float]:
        """Look at the list; keeps the score of this step.

        Args:
            module: in eval mode; its ``network`` is looked at, from a clip to logits.
            step: steps done.
            device: where the module is.

        Returns:
            ``validation_loss`` (cross-entropy) and ``validation_top1``, means over the clips of all processes.
        """
        dataset = RequestedClips(ClipReader(self.index, [self.modality]), self.requests)
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        mixed = self.bfloat16 and device.type == "cuda"
        for raw in clip_loader(dataset, self._share, self.num_workers, pin_memory=device.type == "cuda"):
            batch = to_network_input(raw, device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
                logits = module.network(batch[self.modality])  # type: ignore[operator]
            sums[0] += F.cross_entropy(logits.float(), batch["labels"], reduction="sum")
            sums[1] += (logits.argmax(dim=1) == batch["labels"]).sum()
        loss, top1 = (self.ranks.sum(sums) / len(self.requests)).tolist()
        self.score = Score(loss, step)
        return {"validation_loss": loss, "validation_top1": top1}

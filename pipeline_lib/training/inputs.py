"""What a training sees: the lists of its data set, and their clips in micro-batches, step after step."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch.utils.data import Dataset

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.sealing import DamageError
from pipeline_lib.clips.dataset import (
    Batch,
    ClipReader,
    MicroBatchSampler,
    TrainingClips,
    clip_loader,
    directional_labels,
)
from pipeline_lib.clips.index import ClipIndex, build_index
from pipeline_lib.clips.views import PairedClips, StartCounts
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.training.batch_plan import BatchPlan
from pipeline_lib.training.objectives.base import TrainingObjective
from pipeline_lib.training.validation import curve_videos


def open_training_list(
    specification: TrainingSpecification, layout: Layout, objective: TrainingObjective, overfit: int | None = None
) -> ClipIndex:
    """The videos that are trained on.

    Args:
        specification: names data set, split and motion.
        layout: of the output root.
        objective: says whether motion is read.
        overfit: take only the first so many videos.

    Raises:
        UserError: the objective needs motion and the experiment names none, or a file is missing or unreadable.
    """
    motion = specification.motion if "flow" in objective.modalities else None
    if "flow" in objective.modalities and motion is None:
        raise UserError(f"experiment {specification.experiment} sees flow and names no motion kind (key motion)")
    index = build_index(
        layout,
        specification.dataset,
        specification.frame_format,
        motion,
        specification.num_shards,
        specification.split,
        "train",
        with_strengths=specification.objective.needs_strength,
        share=specification.train_share,
    )
    return index if overfit is None else index.first(overfit)


def open_validation_list(specification: TrainingSpecification, layout: Layout) -> ClipIndex | None:
    """The validation videos, if the training is judged on the way; None if it is not, or if there is none for a curve.

    Raises:
        UserError: the recipe validates, and a file is missing or unreadable or the list is empty.
    """
    recipe = specification.recipe
    draws_curve = specification.objective.has_classifier and curve_videos(recipe) > 0
    if not recipe.validation_steps and not draws_curve:
        return None
    place = (specification.dataset, specification.frame_format)
    motion = specification.motion if specification.modality == "flow" else None
    try:
        return build_index(layout, *place, motion, specification.num_shards, specification.split, "validation")
    except UserError as error:
        if recipe.validation_steps or isinstance(error, DamageError):
            raise
        # A data set need not have a validation list, and a curve decides nothing.
        print(f"no validation curve: {error}", file=sys.stderr)
        return None


def training_clips(
    index: ClipIndex, objective: TrainingObjective, specification: TrainingSpecification
) -> Dataset[Batch]:
    """Clips by global sample index: one of each video, or two views of it if the objective contrasts them."""
    reader = ClipReader(index, objective.modalities)
    sampling, seed = specification.recipe.sampling, specification.seed
    flips = specification.horizontal_flip
    if objective.views is not None:
        # Without labels nobody knows which clips may be mirrored; if some may not, none is.
        motion = objective.views if "flow" in objective.modalities else None
        return PairedClips(reader, sampling, seed, flips == "allowed", motion)
    unmirrored = directional_labels(index.classes) if flips == "by_label" else frozenset()
    recipe = specification.recipe
    return TrainingClips(reader, sampling, seed, flips != "forbidden", unmirrored, recipe.mixing, recipe.global_batch)


def motion_start_counts(clips: Dataset[Batch]) -> StartCounts | None:
    """How many videos have no or one start that MoDist's γ allows; None for clips that are not chosen by motion."""
    return clips.start_counts() if isinstance(clips, PairedClips) else None


@dataclass(frozen=True)
class MicroBatches:
    """The clips of a training in micro-batches, uint8.

    Attributes:
        clips: by global sample index.
        plan: how many clips a forward pass takes.
        num_workers: decoding processes; the clips do not depend on it.
        pin_memory: page-locked batches, for a GPU.
    """

    clips: Dataset[Batch]
    plan: BatchPlan
    num_workers: int
    pin_memory: bool

    def of_rank(self, rank: int, first_step: int, last_step: int) -> Iterator[Batch]:
        """Micro-batches of one process, from the first step to the one before the last."""
        places = [(part.first, part.num_clips) for part in self.plan.parts[rank]]
        return self._load(first_step, last_step, places)

    def of_all_ranks(self, first_step: int, num_batches: int) -> Iterator[Batch]:
        """At least ``num_batches`` batches from a step on, whole steps, for one process.

        A batch holds all clips that a batch normalisation sees, also if several processes shared them.
        """
        sizes = self.plan.groups
        num_steps = -(-num_batches // len(sizes))
        return self._load(
            first_step, first_step + num_steps, list(zip(accumulate(sizes, initial=0), sizes, strict=False))
        )

    def _load(self, first: int, last: int, places: Sequence[tuple[int, int]]) -> Iterator[Batch]:
        sampler = MicroBatchSampler(first, last, self.plan.global_batch, places)
        return iter(clip_loader(self.clips, sampler, self.num_workers, self.pin_memory))

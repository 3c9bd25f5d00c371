"""The clips that an objective asks for."""

from torch.utils.data import Dataset

from pipeline_lib.clips.dataset import Batch, ClipReader, TrainingClips, directional_labels
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.views import PairedClips
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.training.objectives.base import TrainingObjective


def training_clips(
    index: ClipIndex, objective: TrainingObjective, specification: TrainingSpecification
) -> Dataset[Batch]:
    """Clips by global sample index: one of each video, or two views of it where the objective contrasts them."""
    reader = ClipReader(index, objective.modalities)
    sampling, seed = specification.recipe.sampling, specification.seed
    flips = specification.horizontal_flip
    if objective.views is not None:
        # Without labels nobody knows which clips may be mirrored, so where some may not, none are.
        motion = objective.views if "flow" in objective.modalities else None
        return PairedClips(reader, sampling, seed, flips == "allowed", motion)
    unmirrored = directional_labels(index.classes) if flips == "by_label" else frozenset()
    return TrainingClips(reader, sampling, seed, flips != "forbidden", unmirrored)

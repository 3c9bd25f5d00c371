"""RandAugment, random erasing and the mixing of clips, by torchvision's own transforms.

torchvision draws from torch's global generator. Here that generator is seeded before each draw with a number that is a
function of (seed, purpose, sample or step), and put back afterwards. So what a clip goes through does not depend on the
loader's workers, on the number of processes, on accumulation or on where a run was resumed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import Video

from pipeline_lib.clips.sampling import ERASING, MIXING, RAND_AUGMENT, generator
from pipeline_lib.configuration.training import Erasing, Mixing, RandAugment

_MOVES_PIXELS = frozenset({"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"})


class _Colours(v2.RandAugment):  # type: ignore[misc]
    """RandAugment without the operations that move pixels."""

    _AUGMENTATION_SPACE = {
        name: value for name, value in v2.RandAugment._AUGMENTATION_SPACE.items() if name not in _MOVES_PIXELS
    }


@contextmanager
def seeded(seed: int, purpose: int, counter: int) -> Iterator[None]:
    """Within the block torch's generator of the CPU is a function of the arguments; then it goes on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, purpose, counter).integers(2**62)))
        yield


@lru_cache(maxsize=4)
def _transform(num_ops: int, magnitude: int, operations: str) -> v2.RandAugment:
    return (_Colours if operations == "colours" else v2.RandAugment)(num_ops, magnitude)


def rand_augment(clip: np.ndarray, settings: RandAugment, seed: int, sample: int) -> np.ndarray:
    """A clip after RandAugment: the same operations and magnitudes for all its frames.

    Args:
        clip: uint8 (T, H, W, 3), RGB.
        settings: number, strength and kind of the operations.
        seed: the run's.
        sample: the global sample index.

    Returns:
        uint8 (T, H, W, 3). Pixels that come from outside the picture are black, torchvision's default.
    """
    frames = Video(torch.from_numpy(clip).permute(0, 3, 1, 2))
    with seeded(seed, RAND_AUGMENT, sample):
        changed = _transform(settings.num_ops, settings.magnitude, settings.operations)(frames)
    result: np.ndarray = changed.as_subclass(torch.Tensor).permute(0, 2, 3, 1).numpy()
    return result


def draw_erased(settings: Erasing, side: int, seed: int, sample: int) -> list[int]:
    """The rectangle that a clip loses: top, left, height and width, pixels; all 0 if it loses none.

    Args:
        settings: probability and ranges.
        side: of the clip, pixels.
        seed: the run's.
        sample: the global sample index.
    """
    transform = v2.RandomErasing(settings.probability, settings.area, settings.aspect)
    with seeded(seed, ERASING, sample):
        # The order of torchvision's `forward`: first whether, then where.
        if torch.rand(1) >= transform.p:
            return [0, 0, 0, 0]
        drawn = transform.make_params([torch.empty(1, side, side)])
    # Without a value: none of ten rectangles fitted.
    return [0, 0, 0, 0] if drawn["v"] is None else [int(drawn[key]) for key in "ijhw"]


class Mixture(NamedTuple):
    """How the clips of a step are mixed.

    ``share``: λ, of a clip's own label, in [0, 1]. ``box``: left, top, right and bottom of what comes from the other
    clip, pixels (CutMix); None blends all pixels (MixUp).
    """

    share: float
    box: tuple[int, int, int, int] | None


def draw_mixture(settings: Mixing, side: int, seed: int, step: int) -> Mixture | None:
    """How a step mixes its clips, or None if it does not.

    Args:
        settings: α of each kind, and the probability.
        side: of the clips, pixels.
        seed: the run's.
        step: of the training; all its clips are mixed alike, however they are divided over passes and processes.
    """
    with seeded(seed, MIXING, step):
        if torch.rand(1) >= settings.probability:
            return None
        uses_cutmix = bool(settings.cutmix) and (not settings.mixup or bool(torch.rand(1) < 0.5))
        if not uses_cutmix:
            return Mixture(v2.MixUp(alpha=settings.mixup).make_params([])["lam"], None)
        drawn = v2.CutMix(alpha=settings.cutmix).make_params([torch.empty(1, side, side)])
        return Mixture(drawn["lam_adjusted"], drawn["box"])


def erase(clips: torch.Tensor, rectangles: Sequence[Sequence[int]]) -> torch.Tensor:
    """Zero a rectangle (top, left, height, width) of each clip (B, C, T, H, W), in place."""
    for clip, (top, left, height, width) in zip(clips, rectangles, strict=True):
        clip[..., top : top + height, left : left + width] = 0.0
    return clips


def mix(clips: torch.Tensor, partners: torch.Tensor, mixture: Mixture) -> torch.Tensor:
    """The first clips of a batch, mixed with others of it.

    Args:
        clips: float (B + E, C, T, H, W): the batch, then clips of it that lie in another pass.
        partners: int64 (B,), the clip that each is mixed with.
        mixture: how.

    Returns:
        float (B, C, T, H, W).
    """
    own, other = clips[: len(partners)], clips[partners]
    if mixture.box is None:
        mixed = other.mul_(1.0 - mixture.share).add_(own * mixture.share)
    else:
        left, top, right, bottom = mixture.box
        mixed = own.clone()
        mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return mixed.contiguous(memory_format=torch.channels_last_3d)

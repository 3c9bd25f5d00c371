"""A network's outputs for the clips of many videos, yielded video by video, for everything that judges a network."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.protocol_clips import ProtocolClips
from pipeline_lib.clips.sampling import ClipRequest

Forward = Callable[[dict[str, torch.Tensor]], Any]
"""A batch as ``to_network_input`` gives it → a sequence (or a tensor) of one output per clip, on the CPU."""


class VideoOutputs(NamedTuple):
    """A network's outputs for the clips of one video.

    ``row`` is the video's in the index; ``requests`` its clips, the ``num_crops`` crops of one start after each other;
    ``outputs`` one output a clip, in the same order.
    """

    row: int
    requests: list[ClipRequest]
    num_crops: int
    outputs: list[Any]


def video_outputs(
    clips: ProtocolClips,
    forward: Forward,
    device: torch.device,
    num_workers: int = 0,
    is_done: Callable[[int], bool] = lambda _: False,
) -> Iterator[VideoOutputs]:
    """Compute the clips' outputs, at most a batch ahead of the video that is yielded. Equal clips share one output.

    Args:
        clips: which videos, and which clips of each.
        forward: computes a batch.
        device: where it computes.
        num_workers: processes that decode; 0 decodes in this one.
        is_done: whether a video (by its row) is left out. It is computed all the same if others of its batch are not.
    """
    waiting: dict[int, dict[int, Any]] = {}
    for places, batch in clips.loader(num_workers, device, is_done):
        outputs = forward(to_network_input(batch, device))
        for (row, clip), output in zip(places, outputs, strict=True):
            waiting.setdefault(row, {})[clip] = output
        for row in dict.fromkeys(row for row, _ in places):
            firsts = clips.firsts(row)
            if len(waiting[row]) == len(set(firsts)):
                found = waiting.pop(row)
                if not is_done(row):
                    yield VideoOutputs(row, clips.of(row), clips.num_crops, [found[first] for first in firsts])

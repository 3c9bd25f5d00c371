"""A network's outputs for the clips of many videos, handed on video by video: the core of everything that judges."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.protocol_clips import ProtocolClips
from pipeline_lib.clips.sampling import ClipRequest

Forward = Callable[[dict[str, torch.Tensor]], Any]
"""A batch as ``to_network_input`` gives it → a sequence (or a tensor) of one output per clip, on the CPU."""


class VideoOutputs(NamedTuple):
    """What a network gave for the clips of one video.

    ``row`` is the video's in the index; ``requests`` its clips, the ``num_crops`` crops of one start behind each other;
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
    """Compute the clips' outputs, at most a batch of them ahead of what is handed on.

    Args:
        clips: which videos, and which clips of each.
        forward: computes a batch.
        device: where it computes.
        num_workers: processes that decode; 0 decodes in this one.
        is_done: whether a video (by its row) is left out. It may be computed all the same, beside others in its batch.
    """
    waiting: dict[int, list[Any]] = {}
    for places, batch in clips.loader(num_workers, device, is_done):
        outputs = forward(to_network_input(batch, device))
        for (row, _), output in zip(places, outputs, strict=True):
            waiting.setdefault(row, []).append(output)
        for row in dict.fromkeys(row for row, _ in places):
            requests = clips.of(row)
            if len(waiting[row]) == len(requests):
                found = waiting.pop(row)
                if not is_done(row):
                    yield VideoOutputs(row, requests, clips.num_crops, found)

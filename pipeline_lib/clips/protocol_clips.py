"""The clips by which a protocol judges a video, read video after video, so that no list of all clips is in memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch.utils.data import Dataset, Sampler

from pipeline_lib.clips.dataset import Batch, ClipReader, clip_loader
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.sampling import (
    ClipRequest,
    StoredVideo,
    crop_corner,
    segment_frames,
    stored_stride,
    uniform_starts,
    whole_length,
)
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.training import Sampling

# A forward pass gets at most this many pixels (eight clips of 64 × 224²) and this many clips. The limits are fixed, so
# that a clip's outputs never depend on where an evaluation was interrupted.
PIXELS_PER_BATCH = 8 * 64 * 224 * 224
CLIPS_PER_BATCH = 64

Place = tuple[int, int]
"""A clip: row of its video in the index, and number of the clip within the video."""


def crop_places(num_crops: int, height: int, width: int) -> list[tuple[float, float]]:
    """Places (vertical, horizontal) of the crops in [0, 1]: the centre, or three along the longer side.

    ``height`` and ``width`` are those of the resized frame.

    Three crops are those of the non-local networks (Wang et al. 2018, section 5.1): they cover the frame when the
    crop's side is the short side's.
    """
    if num_crops == 1:
        return [(0.5, 0.5)]
    steps = [index / (num_crops - 1) for index in range(num_crops)]
    return [(0.5, step) if width >= height else (step, 0.5) for step in steps]


def evaluated_resize(sampling: Sampling, crop: int) -> tuple[int | None, tuple[int, int] | None]:
    """Short side, or height and width, to which frames are resized for evaluation; enlarged if the crop needs it."""
    if sampling.resize is None:
        assert sampling.short_side is not None
        return max(sampling.short_side[0], crop), None
    height, width = sampling.resize
    factor = max(1.0, crop / min(height, width))
    return None, (round(height * factor), round(width * factor))


def video_requests(protocol: Protocol, sampling: Sampling, video: StoredVideo) -> list[ClipRequest]:
    """The clips of one video under a protocol: for each start its crops, in order.

    Args:
        protocol: how many clips and crops; values that are None come from the recipe.
        sampling: the recipe's.
        video: of which the clips are.

    Raises:
        UserError: the stride counts seconds, and the video's rate is unknown.
    """
    crop = protocol.crop or sampling.crop
    num_frames = protocol.num_frames or sampling.num_frames
    frames, stride = None, 1.0
    if protocol.num_clips != "all_frames" and sampling.spacing == "segments":
        # Every clip spans the whole video, so that all clips of a video are equal, as in PySlowFast's ssv2.py.
        frames = segment_frames(num_frames, video.num_frames)
        starts = [frames[0]] * protocol.num_clips
    else:
        stride = stored_stride(sampling.stride, sampling.frames_per_second, video)
        if protocol.num_clips == "all_frames":
            num_frames = whole_length(protocol, num_frames, stride, video.num_frames)
            starts = [0]
        else:
            starts = uniform_starts(protocol.num_clips, num_frames, stride, video.num_frames)
    short_side, resize = evaluated_resize(sampling, crop)
    request = ClipRequest(
        video=video.row,
        start=starts[0],
        num_frames=num_frames,
        stride=stride,
        crop=crop,
        short_side=short_side,
        resize=resize,
        reverse=protocol.reverse,
        past_end=protocol.past_end or sampling.past_end,
        frames=frames,
    )
    places = crop_places(protocol.num_crops, *request.resized(video.height, video.width))
    return [
        replace(request, start=start, vertical=vertical, horizontal=horizontal)
        for start in starts
        for vertical, horizontal in places
    ]


def first_equals(requests: Sequence[ClipRequest], height: int, width: int) -> list[int]:
    """For each clip of a video the number of the first one that holds the same frames and pixels.

    Clips are equal where a video is hardly longer than a clip, and crops where the resized frame is as small as the
    crop. Equal clips are computed once.

    Args:
        requests: as from ``video_requests``, which differ in their start and in the place of their crop alone.
        height: of the stored frames, pixels.
        width: of the stored frames, pixels.
    """
    seen: dict[tuple[int, tuple[int, int]], int] = {}
    places = [(one.start, crop_corner(*one.resized(height, width), one)) for one in requests]
    return [seen.setdefault(place, number) for number, place in enumerate(places)]


class ProtocolClips(Dataset[Batch]):
    """The clips of some videos under a protocol; an item is a batch of places.

    Args:
        index: the videos.
        protocol: which clips of each.
        sampling: the recipe's, for values that the protocol does not set.
        modalities: what is read of a clip.
        rows: the videos that are judged; None takes all.
        clips_per_batch: at most so many clips in one batch, beside the limit of pixels.
    """

    def __init__(
        self,
        index: ClipIndex,
        protocol: Protocol,
        sampling: Sampling,
        modalities: Sequence[str],
        rows: Sequence[int] | None = None,
        clips_per_batch: int = CLIPS_PER_BATCH,
    ) -> None:
        self.index, self.protocol, self.sampling = index, protocol, sampling
        self.rows = range(len(index)) if rows is None else rows
        self.clips_per_batch = clips_per_batch
        self.num_crops = protocol.num_crops
        self._reader = ClipReader(index, modalities)
        self._last: tuple[int, list[ClipRequest], list[int]] = (-1, [], [])

    def _of(self, row: int) -> tuple[list[ClipRequest], list[int]]:
        # Those of the last video are kept, because they are requested one after the other.
        if self._last[0] != row:
            video = self.index.video(row)
            requests = video_requests(self.protocol, self.sampling, video)
            self._last = row, requests, first_equals(requests, video.height, video.width)
        return self._last[1:]

    def of(self, row: int) -> list[ClipRequest]:
        """The clips of one video."""
        return self._of(row)[0]

    def firsts(self, row: int) -> list[int]:
        """For each clip of a video the number of the first one that is equal to it, and is computed for it."""
        return self._of(row)[1]

    def batches(self, is_done: Callable[[int], bool] = lambda _: False) -> Iterator[list[Place]]:
        """Places of the clips that are computed, in batches of equal clip length, within the limits of this module.

        A batch may hold clips of several videos. It is left out only if all its videos are done, so that the others are
        computed in the same batch as in an uninterrupted run.
        """
        batch: list[Place] = []
        length = 0
        for row in self.rows:
            requests, firsts = self._of(row)
            for clip in dict.fromkeys(firsts):
                request = requests[clip]
                pixels = request.num_frames * request.crop * request.crop
                limit = max(1, min(self.clips_per_batch, PIXELS_PER_BATCH // pixels))
                if batch and (len(batch) >= limit or length != request.num_frames):
                    if not all(is_done(video) for video, _ in batch):
                        yield batch
                    batch = []
                batch.append((row, clip))
                length = request.num_frames
        if batch and not all(is_done(video) for video, _ in batch):
            yield batch

    def __getitem__(self, place: Place) -> Batch:
        return self.__getitems__([place])

    def __getitems__(self, places: Sequence[Place]) -> Batch:
        """A batch at once, so that nothing has to be copied together."""
        return self._reader.read([self.of(row)[clip] for row, clip in places])

    def loader(self, num_workers: int, device: torch.device, is_done: Callable[[int], bool]) -> "PlacedLoader":
        """Batches with the places of their clips, decoded in ``num_workers`` processes (0: in this one)."""
        return PlacedLoader(self, num_workers, device, is_done)


class _Noted(Sampler[list[Place]]):
    """Batches as they are drawn; each is noted for the receiver of its clips."""

    def __init__(self, batches: Iterator[list[Place]]) -> None:
        self.batches = batches
        self.drawn: deque[list[Place]] = deque()

    def __iter__(self) -> Iterator[list[Place]]:
        for batch in self.batches:
            self.drawn.append(batch)
            yield batch


class PlacedLoader:
    """Iterates over (places, batch)."""

    def __init__(
        self, clips: ProtocolClips, num_workers: int, device: torch.device, is_done: Callable[[int], bool]
    ) -> None:
        self._noted = _Noted(clips.batches(is_done))
        self._loader = clip_loader(clips, self._noted, num_workers, device.type == "cuda")

    def __iter__(self) -> Iterator[tuple[list[Place], Batch]]:
        for batch in self._loader:
            yield self._noted.drawn.popleft(), batch

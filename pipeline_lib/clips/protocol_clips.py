"""The clips by which a protocol judges a video, read video after video, so that no list of all clips is in memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline_lib.clips.dataset import Batch, ClipReader, clip_loader
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.sampling import ClipRequest, uniform_starts
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

    Three crops are those of the non-local networks (Wang et al. 2018, section 5.1): they cover the frame when the
    crop's side is the short side's.
    """
    if num_crops == 1:
        return [(0.5, 0.5)]
    steps = [index / (num_crops - 1) for index in range(num_crops)]
    return [(0.5, step) if width >= height else (step, 0.5) for step in steps]


def video_requests(
    protocol: Protocol, sampling: Sampling, video: int, video_frames: int, height: int, width: int
) -> list[ClipRequest]:
    """The clips of one video under a protocol: for each start its crops, in order.

    Args:
        protocol: how many clips and crops; values that are None come from the recipe.
        sampling: the recipe's.
        video: row of the index.
        video_frames: frames of the video.
        height: of the stored frames, pixels.
        width: of the stored frames, pixels.
    """
    crop = protocol.crop or sampling.crop
    num_frames = protocol.num_frames or sampling.num_frames
    if protocol.num_clips == "all_frames":
        # S3D-G and D3D: one clip of all frames. A video shorter than a training clip loops, as in training.
        num_frames = max(num_frames, len(range(0, video_frames, sampling.stride)))
        starts = [0]
    else:
        starts = uniform_starts(protocol.num_clips, num_frames, sampling.stride, video_frames)
    return [
        ClipRequest(
            video=video,
            start=start,
            num_frames=num_frames,
            stride=sampling.stride,
            crop=crop,
            short_side=max(sampling.short_side[0], crop),
            vertical=vertical,
            horizontal=horizontal,
            reverse=protocol.reverse,
        )
        for start in starts
        for vertical, horizontal in crop_places(protocol.num_crops, height, width)
    ]


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
        self._last: tuple[int, list[ClipRequest]] = (-1, [])

    def of(self, row: int) -> list[ClipRequest]:
        """The clips of one video. Those of the last video are kept, because they are requested one after the other."""
        if self._last[0] != row:
            index = self.index
            shape = (int(index.video_frames[row]), int(index.heights[row]), int(index.widths[row]))
            self._last = row, video_requests(self.protocol, self.sampling, row, *shape)
        return self._last[1]

    def batches(self, is_done: Callable[[int], bool] = lambda _: False) -> Iterator[list[Place]]:
        """Places in batches of equal clip length, within the limits of this module.

        A batch may hold clips of several videos. It is left out only if all its videos are done, so that the others are
        computed in the same batch as in an uninterrupted run.
        """
        batch: list[Place] = []
        length = 0
        for row in self.rows:
            for clip, request in enumerate(self.of(row)):
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
        self._loader: DataLoader[Batch] = clip_loader(clips, self._noted, num_workers, device.type == "cuda")

    def __iter__(self) -> Iterator[tuple[list[Place], Batch]]:
        for batch in self._loader:
            yield self._noted.drawn.popleft(), batch

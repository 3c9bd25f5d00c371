"""Two visual and two motion clips of each video, which MoDist contrasts.

MoDist (section 3.1) takes a query and a key from the same video, each from a random clip. The motion clips are drawn
independently of the visual ones, so that they need not be "in temporal synchronization", and only where there is
motion. Visual clips are cropped, mirrored and changed in colour (section 4.1). Motion clips get no augmentation, so
they take the centre. The two motion clips of a video are different ones if it has two starts to choose from: equal
ones would teach the motion pathway nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from pipeline_lib.clips.colours import draw_colours
from pipeline_lib.clips.dataset import Batch, ClipReader, video_of_sample
from pipeline_lib.clips.motion_strength import MotionStarts, strong_starts
from pipeline_lib.clips.sampling import (
    AUGMENTATION,
    COLOURS,
    MOTION_VIEW,
    ClipRequest,
    generator,
    latest_start,
    num_uniform,
    random_request,
    stored_stride,
)
from pipeline_lib.configuration.training import Sampling

NUM_VIEWS = 2


@dataclass(frozen=True)
class MotionViews:
    """How motion clips are taken.

    Attributes:
        num_frames: of a clip (16 in MoDist).
        stride: of a clip (4 in MoDist: the same span as 8 visual frames at stride 8); it counts as the visual clips'
            does, stored frames or units of 1 / ``frames_per_second``.
        threshold: γ; 0 takes any clip.
        jitter: False aligns the first visual clip with the second motion clip, and the second with the first. These
            are the pairs of equation 2, as in the paper's ablation without jitter.
        threshold_of: what must exceed γ, see ``MotionDistillation.threshold_of``.
    """

    num_frames: int
    stride: int
    threshold: float
    jitter: bool
    threshold_of: Literal["frame", "clip_share"] = "frame"


class StartCounts(NamedTuple):
    """How many videos give motion clips in spite of γ, or one motion clip only.

    ``videos`` of the list; ``none_allowed``: videos without a start that γ allows, which give their strongest clips;
    ``one_allowed``: videos with one such start, whose two motion views are the same clip.
    """

    videos: int
    none_allowed: int
    one_allowed: int


class PairedClips(Dataset[Batch]):
    """Two views of each video by global sample index, a pure function of (seed, sample) and the index.

    Args:
        reader: the videos; its modalities are ``rgb``, or ``rgb`` and ``flow``.
        sampling: of the visual clips.
        seed: the run's seed.
        horizontal_flip: whether visual clips may be mirrored.
        motion: of the motion clips, if the reader has them.
    """

    def __init__(
        self,
        reader: ClipReader,
        sampling: Sampling,
        seed: int,
        horizontal_flip: bool,
        motion: MotionViews | None,
    ) -> None:
        self.reader, self.sampling, self.seed = reader, sampling, seed
        self.horizontal_flip, self.motion = horizontal_flip, motion

    def motion_starts(self, row: int) -> MotionStarts:
        """Where motion clips of a video may start."""
        assert self.motion is not None
        index, motion, video = self.reader.index, self.motion, self.reader.index.video(row)
        stride = stored_stride(motion.stride, self.sampling.frames_per_second, video)
        if index.strengths is None or motion.threshold <= 0:
            latest = latest_start(motion.num_frames, stride, video.num_frames)
            return MotionStarts(np.arange(latest + 1), latest + 1)
        own = index.strengths.of_video(row, video.num_frames)
        every_frame = motion.threshold_of == "frame"
        if every_frame:
            # Shares of the bound are stored; Σ P / K of section 3.1 is in the unit of the motion.
            own = own.astype(np.float64) * index.motion_bound
        past_end = self.sampling.past_end
        return strong_starts(own, motion.num_frames, stride, motion.threshold, every_frame, past_end)

    def start_counts(self) -> StartCounts | None:
        """How many videos have no start, or one, that γ allows; None if no γ is compared with."""
        if self.motion is None or self.motion.threshold <= 0:
            return None
        allowed = [self.motion_starts(row).num_allowed for row in range(len(self.reader.index))]
        return StartCounts(len(allowed), allowed.count(0), allowed.count(1))

    def motion_requests(self, row: int, sample: int) -> list[ClipRequest]:
        """The motion clips of both views (the query's, the key's), different ones if the video has two starts."""
        assert self.motion is not None
        video, starts = self.reader.index.video(row), self.motion_starts(row).starts
        chosen: list[int] = []
        for view in range(NUM_VIEWS):
            random = generator(self.seed, MOTION_VIEW, sample, view)
            start = int(starts[int(random.random() * len(starts))])
            if start in chosen and len(starts) > 1:
                others = starts[starts != start]
                start = int(others[int(random.random() * len(others))])
            chosen.append(start)
        short_side = self.sampling.short_side
        return [
            ClipRequest(
                video=row,
                start=start,
                num_frames=self.motion.num_frames,
                stride=stored_stride(self.motion.stride, self.sampling.frames_per_second, video),
                crop=self.sampling.crop,
                short_side=None if short_side is None else short_side[0],
                resize=self.sampling.resize,
                past_end=self.sampling.past_end,
                sample=sample,
            )
            for start in chosen
        ]

    def visual_request(self, video: int, sample: int, view: int) -> ClipRequest:
        """The visual clip of a view (0 the query's, 1 the key's)."""
        index = self.reader.index
        labels = index.labels[video]
        uniform = generator(self.seed, AUGMENTATION, sample, 1 + view).random(num_uniform(self.sampling))
        label = labels[0] if labels else -1
        return random_request(self.sampling, uniform, index.video(video), sample, label, self.horizontal_flip)

    def requests(self, sample: int) -> tuple[list[ClipRequest], list[ClipRequest]]:
        """Visual and motion clips of a sample, each of both views; no motion clips if the reader has none."""
        video = video_of_sample(self.seed, sample, len(self.reader.index))
        visual = [self.visual_request(video, sample, view) for view in range(NUM_VIEWS)]
        if self.motion is None:
            return visual, []
        motion = self.motion_requests(video, sample)
        if not self.motion.jitter:
            visual = [replace(own, start=motion[1 - view].start) for view, own in enumerate(visual)]
        return visual, motion

    def __getitem__(self, sample: int) -> Batch:
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int]) -> Batch:
        """A micro-batch of B videos.

        Returns:
            ``rgb`` uint8 (2B, T, H, W, 3), the B queries before the B keys, with ``flip`` (2B,); ``flow`` and
            ``flow_scale`` in the same order (never mirrored: ``flow_flip``); ``colours``; ``labels``, ``videos`` and
            ``samples`` (B,).
        """
        pairs = [self.requests(sample) for sample in samples]
        visual = [views[view] for view in range(NUM_VIEWS) for views, _ in pairs]
        batch = self.reader.read(visual, ["rgb"])
        for name in ("labels", "videos", "samples"):
            batch[name] = batch[name][: len(samples)]
        if self.motion is not None:
            motion = [views[view] for view in range(NUM_VIEWS) for _, views in pairs]
            read = self.reader.read(motion, ["flow"])
            batch |= {name: tensor for name, tensor in read.items() if name.startswith("flow")}
            batch["flow_flip"] = read["flip"]
        colours = self.sampling.colours
        if colours is not None:
            streams = [generator(self.seed, COLOURS, s, 1 + view) for view in range(NUM_VIEWS) for s in samples]
            batch["colours"] = torch.tensor([draw_colours(random, colours) for random in streams], dtype=torch.float32)
        return batch

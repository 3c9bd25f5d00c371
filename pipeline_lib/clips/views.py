"""Two visual and two motion clips of each video, which MoDist contrasts.

MoDist (section 3.1) takes a query and a key from the same video, each from a random clip. The motion clips are drawn
independently of the visual ones, so that they need not be "in temporal synchronization", and only where there is
motion. Visual clips are cropped, mirrored and changed in colour (section 4.1). Motion clips get no augmentation, so
they take the centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from pipeline_lib.clips.colours import draw_colours
from pipeline_lib.clips.dataset import Batch, ClipReader, video_of_sample
from pipeline_lib.clips.motion_strength import strong_starts
from pipeline_lib.clips.sampling import (
    AUGMENTATION,
    COLOURS,
    MOTION_VIEW,
    NUM_UNIFORM,
    ClipRequest,
    generator,
    latest_start,
    random_request,
)
from pipeline_lib.configuration.training import Sampling

NUM_VIEWS = 2


@dataclass(frozen=True)
class MotionViews:
    """How motion clips are taken.

    Attributes:
        num_frames: of a clip (16 in MoDist).
        stride: of a clip (4 in MoDist: the same span as 8 visual frames at stride 8).
        threshold: γ, see ``strong_starts``.
        jitter: False aligns the first visual clip with the second motion clip, and the second with the first. These
            are the pairs of equation 2, as in the paper's ablation without jitter.
    """

    num_frames: int
    stride: int
    threshold: float
    jitter: bool


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

    def motion_request(self, video: int, sample: int, view: int) -> ClipRequest:
        """The motion clip of a view (0 the query's, 1 the key's)."""
        assert self.motion is not None
        index, motion = self.reader.index, self.motion
        video_frames = int(index.video_frames[video])
        if index.strengths is not None and motion.threshold > 0:
            own = index.strengths.of_video(video, video_frames)
            starts = strong_starts(own, motion.num_frames, motion.stride, motion.threshold)
        else:
            starts = np.arange(latest_start(motion.num_frames, motion.stride, video_frames) + 1)
        random = generator(self.seed, MOTION_VIEW, sample, view)
        return ClipRequest(
            video=video,
            start=int(starts[int(random.random() * len(starts))]),
            num_frames=motion.num_frames,
            stride=motion.stride,
            crop=self.sampling.crop,
            short_side=self.sampling.short_side[0],
            sample=sample,
        )

    def visual_request(self, video: int, sample: int, view: int) -> ClipRequest:
        """The visual clip of a view (0 the query's, 1 the key's)."""
        index = self.reader.index
        labels, video_frames = index.labels[video], int(index.video_frames[video])
        shape = int(index.heights[video]), int(index.widths[video])
        uniform = generator(self.seed, AUGMENTATION, sample, 1 + view).random(NUM_UNIFORM)
        label = labels[0] if labels else -1
        return random_request(self.sampling, uniform, video_frames, shape, video, sample, label, self.horizontal_flip)

    def requests(self, sample: int) -> tuple[list[ClipRequest], list[ClipRequest]]:
        """Visual and motion clips of a sample, each of both views; no motion clips if the reader has none."""
        video = video_of_sample(self.seed, sample, len(self.reader.index))
        visual = [self.visual_request(video, sample, view) for view in range(NUM_VIEWS)]
        if self.motion is None:
            return visual, []
        motion = [self.motion_request(video, sample, view) for view in range(NUM_VIEWS)]
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

"""Where a video moves enough for a motion clip, by the strength tables beside the motion shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline_lib.clips.sampling import PADDING, frame_indices, frame_offsets, latest_start
from pipeline_lib.configuration.training import PastEnd
from pipeline_lib.errors import UserError
from pipeline_lib.media.strengths import read_strength_table


@dataclass(frozen=True)
class Strengths:
    """The strength of every frame of an index's videos, in one array (240,000 videos: 300 MB, shared by workers)."""

    values: np.ndarray
    """float32, each the mean of |motion| as a share of the kind's bound, in [0, 1]."""
    first: np.ndarray
    """Position of each video's first frame in ``values``, int64 (N,)."""

    def of_video(self, video: int, video_frames: int) -> np.ndarray:
        """Strengths of one video's frames, float32 (video_frames,)."""
        first = int(self.first[video])
        return self.values[first : first + video_frames]


class MotionStarts(NamedTuple):
    """Where motion clips of a video may start.

    ``starts`` int64 (S,), S ≥ 1, ascending, each in [0, latest_start]; ``num_allowed`` says how many of the video's
    starts γ allows. With 0 of them ``starts`` holds those of the strongest clips.
    """

    starts: np.ndarray
    num_allowed: int


def strong_starts(
    strengths: np.ndarray,
    num_frames: int,
    stride: float,
    threshold: float,
    every_frame: bool = True,
    past_end: PastEnd = "loop",
) -> MotionStarts:
    """Starts of the clips whose motion is stronger than a threshold; if there is none, those of the two strongest.

    MoDist takes clips only from "temporal regions with strong motion cues" and for that samples only frames with
    Σ P_i / K > γ (section 3.1). It does not say what happens to a video without such frames. Leaving it out would
    shrink the data set, so it gives its strongest region, by the mean over a clip; two starts, because the two motion
    views of a video are to be different clips.

    Args:
        strengths: (T,) of the video's frames.
        num_frames: of the clip.
        stride: of the clip, in stored frames.
        threshold: γ, in the unit of the strengths; 0 allows every start.
        every_frame: whether every frame of the clip must exceed γ, or else the mean over its frames.
        past_end: what a clip of a shorter video holds beyond the end.
    """
    # In float64, because γ would be rounded to compare it with float32.
    strengths = strengths.astype(np.float64)
    video_frames = len(strengths)
    starts = np.arange(latest_start(num_frames, stride, video_frames) + 1)
    if threshold <= 0.0:
        return MotionStarts(starts, len(starts))
    if len(starts) == 1:
        held = frame_indices(0, num_frames, stride, video_frames, past_end)
        clips = strengths[held[held != PADDING]][None]
    else:
        clips = strengths[starts[:, None] + frame_offsets(num_frames, stride)]
    means = clips.mean(axis=1)
    strong = np.flatnonzero((clips.min(axis=1) if every_frame else means) > threshold)
    if len(strong):
        return MotionStarts(strong, len(strong))
    return MotionStarts(np.sort(np.argsort(-means, kind="stable")[:2]), 0)


def read_strengths(
    paths: Sequence[Path], ids: Sequence[str], shards: np.ndarray, video_frames: np.ndarray
) -> tuple[Strengths, list[str]]:
    """The strengths of an index's videos.

    Args:
        paths: the tables, in shard order.
        ids: of the videos, in the index's order.
        shards: position in ``paths`` per video.
        video_frames: frames per video.

    Returns:
        The strengths, and the content digests of the tables that were read.

    Raises:
        UserError: a table is missing, damaged, or of another motion shard.
    """
    first = np.concatenate([[0], np.cumsum(video_frames)[:-1]]).astype(np.int64)
    values = np.zeros(int(video_frames.sum()), np.float32)
    digests = []
    for shard in sorted(set(shards.tolist())):
        path = paths[shard]
        rows, content = read_strength_table(path)
        digests.append(content)
        for video in np.flatnonzero(shards == shard).tolist():
            own = rows.get(ids[video])
            if own is None or len(own) != int(video_frames[video]):
                raise UserError(f"{path} does not fit its motion shard ({ids[video]}): delete it and run again")
            values[first[video] : first[video] + len(own)] = own
    return Strengths(values, first), digests

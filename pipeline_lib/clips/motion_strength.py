"""Where a video moves enough for a motion clip, by the strength tables beside the motion shards."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline_lib.clips.sampling import latest_start
from pipeline_lib.errors import UserError


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


def strong_starts(strengths: np.ndarray, num_frames: int, stride: int, threshold: float) -> np.ndarray:
    """Starts of the clips whose mean strength exceeds a threshold; if there is none, the start of the strongest clip.

    MoDist takes clips only from "temporal regions with strong motion cues" (section 3.1). It does not say what happens
    to a video without such a region. Leaving it out would shrink the data set, so it gives its strongest region.

    Args:
        strengths: (T,) of the video's frames.
        num_frames: of the clip.
        stride: of the clip.
        threshold: γ, as a share of the bound; 0 allows every start.

    Returns:
        int64, at least one, ascending; each in [0, latest_start].
    """
    video_frames = len(strengths)
    starts = np.arange(latest_start(num_frames, stride, video_frames) + 1)
    if threshold <= 0.0:
        return starts
    if len(starts) == 1:
        return starts
    windows = np.stack([strengths[k * stride : k * stride + len(starts)] for k in range(num_frames)])
    means = windows.mean(axis=0, dtype=np.float64)
    strong = np.flatnonzero(means > threshold)
    return strong if len(strong) else np.array([int(means.argmax())])


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
        try:
            table = pq.read_table(path)
            digests.append(str(json.loads(table.schema.metadata[b"provenance"])["content"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): the rule motion_strength makes it from its motion shard"
            ) from error
        rows = dict(zip(table["id"].to_pylist(), table["strength"], strict=True))
        for video in np.flatnonzero(shards == shard).tolist():
            row = rows.get(ids[video])
            own = None if row is None else row.values.to_numpy()
            if own is None or len(own) != int(video_frames[video]):
                raise UserError(f"{path} does not fit its motion shard ({ids[video]}): delete it and run again")
            values[first[video] : first[video] + len(own)] = own
    return Strengths(values, first), digests

"""The manifest's schema, the same for all data sets: columns, statuses, and what every row must satisfy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipeline_lib.errors import UserError

ACCEPTED = "accepted"
REJECTED = "rejected"
MISSING = "missing"
UNLABELLED = "unlabelled"
"""A list whose labels are not public, such as a test list; its videos are predicted, not judged."""
SUBSETS = ("train", "validation", UNLABELLED, "")


class ListedVideo(NamedTuple):
    """A video as an annotation file lists it, before anything is looked for on disk.

    ``subsets`` has one entry per split (``train``, ``validation``, ``unlabelled`` or empty). ``names`` are the possible
    names of its file, in order of preference: a path relative to one of the video folders, or a bare name without
    ending. ``start`` and ``end`` are seconds in the source; ``trim`` says that the file on disk is the whole source, of
    which the video is only this interval. ``reason`` is empty, or says why the video is unusable even if its file
    exists. ``num_frames``: images of a folder, if the list counts them.
    """

    id: str
    labels: tuple[str, ...]
    subsets: tuple[str, ...]
    names: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    group: str = ""
    reason: str = ""
    trim: bool = False
    num_frames: int | None = None


class Box(NamedTuple):
    """One annotated box of an action detection data set, normalised to [0, 1] of the frame's width and height.

    ``time`` is seconds in the source video (AVA) or the index of the frame (JHMDB, UCF101-24).
    """

    id: str
    subset: str
    time: float
    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    person: int


@dataclass
class Listing:
    """What an importer found in the annotation files.

    ``sources`` are the files that were read, by the names under which the manifest records them. ``classes`` is the
    official list of classes, or None if there is none: the classes are then those that occur. ``skipped`` counts files
    in the video folders that are listed as no video, by what is unusual about them.
    """

    videos: list[ListedVideo]
    sources: dict[str, Path]
    classes: list[str] | None = None
    boxes: list[Box] = field(default_factory=list)
    excluded_times: list[tuple[str, float]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


def subset_columns(num_splits: int) -> list[str]:
    """Names of the columns that hold each split's list of a video: ``subset_1``, ``subset_2`` and so on."""
    return [f"subset_{split}" for split in range(1, num_splits + 1)]


def manifest_schema(num_splits: int) -> pa.Schema:
    """The Parquet schema of ``manifest.parquet``.

    ``start`` and ``end`` are seconds in the source video; ``height`` and ``width`` are pixels as displayed (after
    rotation flags); ``frames_per_second`` is the file's own rate; ``content_digest`` identifies the bytes (empty where
    nothing was probed); ``shard`` is the name of the packed shard that holds the video.
    """
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("labels", pa.list_(pa.string()), nullable=False),
            *(pa.field(name, pa.string(), nullable=False) for name in subset_columns(num_splits)),
            pa.field("group", pa.string(), nullable=False),
            pa.field("start", pa.float64()),
            pa.field("end", pa.float64()),
            pa.field("num_frames", pa.int64()),
            pa.field("frames_per_second", pa.float64()),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("content_digest", pa.string(), nullable=False),
            pa.field("shard", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
        ]
    )


def reject_unusable(videos: Sequence[ListedVideo], num_splits: int, classes: Sequence[str] | None) -> list[ListedVideo]:
    """Mark duplicate videos and unknown labels, so that each id is unique and each label known.

    The first of several rows with one id stays. Each later one gets ``#2``, ``#3`` … behind its id and the reason
    ``duplicate video``. Another interval of the same source has another id: it is another video.

    Args:
        videos: as the importer gave them.
        num_splits: how many subsets each video must have.
        classes: the official classes; None accepts every label.

    Raises:
        UserError: a video has no id, an unknown subset, or the wrong number of splits.
    """
    known = None if classes is None else frozenset(classes)
    first: dict[str, ListedVideo] = {}
    # A listed id may itself end in #2.
    taken = {video.id for video in videos}
    again: Counter[str] = Counter()
    result: list[ListedVideo] = []
    for video in videos:
        if not video.id:
            raise UserError(f"a listed video has no id (labels {list(video.labels)}); see docs/manifests.md")
        if len(video.subsets) != num_splits or any(subset not in SUBSETS for subset in video.subsets):
            raise UserError(
                f"{video.id}: lists {list(video.subsets)} for {num_splits} split(s); each must be one of "
                f"{list(SUBSETS)}. "
                "Set num_splits and the annotation lists as docs/manifests.md says."
            )
        if video.id in first:
            again[video.id] += 1
            while f"{video.id}#{again[video.id] + 1}" in taken:
                again[video.id] += 1
            earlier = first[video.id]
            where = "/".join(subset for subset in earlier.subsets if subset) or "no list"
            note = f"duplicate video: listed before in {where} as {', '.join(earlier.labels)}"
            result.append(video._replace(id=f"{video.id}#{again[video.id] + 1}", reason=note))
            continue
        first[video.id] = video
        if not video.reason:
            if not video.labels and UNLABELLED not in video.subsets:
                video = video._replace(reason="unknown label: none is given")
            elif known is not None:
                unknown = [label for label in video.labels if label not in known]
                if unknown:
                    video = video._replace(reason=f"unknown label: {', '.join(unknown)}")
        result.append(video)
    return result

"""Which videos can be read, and where each lies: the manifest joined with the tables of the packed shards."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipeline_lib.artefacts.digest import canonical_json, digest
from pipeline_lib.artefacts.layout import Layout, shard_names
from pipeline_lib.artefacts.manifest_summary import read_summary
from pipeline_lib.artefacts.records import contents_digest
from pipeline_lib.artefacts.tables import read_table
from pipeline_lib.clips.columns import Labels, SharedArrays, Texts
from pipeline_lib.clips.motion_strength import Strengths, read_strengths
from pipeline_lib.clips.sampling import StoredVideo
from pipeline_lib.errors import UserError
from pipeline_lib.media.shards import Shard

FLOW_STORED = (2, 128, 127)
"""How flow is stored: (u, v), zero at 128, the bound 127 bytes from there (``pipeline_lib.flow.quantisation``)."""


_COLUMNS = (
    *("shards", "frames_first", "motion_first", "video_frames"),
    *("heights", "widths", "frames_per_second"),
)
_RAGGED = {"ids": Texts, "labels": Labels}
_DIGEST_ROWS = 10_000


@dataclass(frozen=True)
class ClipIndex:
    """The readable videos of one list of a data set, in columns, which the processes of one machine share.

    A forked worker sees the columns of the process that started it. When an index is pickled for another process, its
    columns go into one file that every process maps (``SharedArrays``): so ten million videos take a gigabyte per
    machine, however many workers read them.

    A video is in the index if the manifest accepts it and every needed shard holds it. Rows are sorted by id, so
    that the order depends only on the set of videos.
    """

    classes: tuple[str, ...]
    """The data set's classes, sorted; labels are positions in it."""
    ids: Texts
    """Video ids (N)."""
    labels: Labels
    """Labels per video (N); most data sets give one."""
    shards: np.ndarray
    """Index into ``frames_paths`` per video, int32 (N,)."""
    frames_first: np.ndarray
    """First frame within the frames shard, int64 (N,)."""
    motion_first: np.ndarray | None
    """First frame within the motion shard, int64 (N,); None if no motion is read."""
    video_frames: np.ndarray
    """Frames per video, int64 (N,)."""
    heights: np.ndarray
    """Height of the stored frames, pixels, int32 (N,)."""
    widths: np.ndarray
    """Width of the stored frames, pixels, int32 (N,)."""
    frames_per_second: np.ndarray
    """Rate of the stored frames, float64 (N,)."""
    frames_paths: tuple[Path, ...]
    """Frames shards, in shard order."""
    motion_paths: tuple[Path, ...]
    """Motion shards, in shard order; empty if no motion is read."""
    motion_bound: float
    """Motion values are clipped to ± this many pixels; 0 if no motion is read."""
    digest: str
    """SHA-256 over the selected videos and the shards' contents."""
    motion_stored: tuple[int, int, int] = FLOW_STORED
    """Channels of a motion frame, the byte of zero, and the bytes from there to the bound."""
    inputs: dict[Path | str, str] = field(default_factory=dict)
    """The shards as records name them: a pattern below the output root, and the digest of the files that match."""
    strengths: Strengths | None = None
    """The strength of each frame's motion, if it was read."""

    def __len__(self) -> int:
        return len(self.ids)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {name: self.__dict__[name] for name in _COLUMNS if self.__dict__[name] is not None}
        for name in _RAGGED:
            column = self.__dict__[name]
            arrays |= {f"{name}.values": column.values, f"{name}.offsets": column.offsets}
        if self.strengths is not None:
            arrays |= {"strengths.values": self.strengths.values, "strengths.first": self.strengths.first}
        return arrays

    def __getstate__(self) -> dict[str, Any]:
        shared = self.__dict__.get("_shared") or SharedArrays(self._arrays())
        # The file lives as long as this index.
        self.__dict__["_shared"] = shared
        return {name: self.__dict__[name] for name in self.__dict__ if name not in (*_COLUMNS, *_RAGGED, "strengths")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shared = state["_shared"]
        self.__dict__.update(state)
        self.__dict__.update({name: shared.get(name) for name in _COLUMNS})
        for name, kind in _RAGGED.items():
            self.__dict__[name] = kind(shared[f"{name}.values"], shared[f"{name}.offsets"])
        has_strengths = "strengths.values" in shared
        self.__dict__["strengths"] = (
            Strengths(shared["strengths.values"], shared["strengths.first"]) if has_strengths else None
        )

    def video(self, row: int) -> StoredVideo:
        """The video of a row."""
        return StoredVideo(
            row=row,
            num_frames=int(self.video_frames[row]),
            height=int(self.heights[row]),
            width=int(self.widths[row]),
            frames_per_second=float(self.frames_per_second[row]),
            id=self.ids[row],
        )

    def first(self, count: int) -> "ClipIndex":
        """An index of the first ``count`` videos (or all, if there are fewer), with its own digest."""
        return replace(
            self,
            ids=self.ids[:count],
            labels=self.labels[:count],
            shards=self.shards[:count],
            frames_first=self.frames_first[:count],
            motion_first=None if self.motion_first is None else self.motion_first[:count],
            video_frames=self.video_frames[:count],
            heights=self.heights[:count],
            widths=self.widths[:count],
            frames_per_second=self.frames_per_second[:count],
            strengths=None if self.strengths is None else replace(self.strengths, first=self.strengths.first[:count]),
            digest=digest([self.digest, count]),
        )


def _listed(layout: Layout, dataset: str, split: int, subset: str) -> pd.DataFrame:
    path = layout.manifest(dataset)
    column = f"subset_{split}"
    maker = f"the manifest of {dataset} has to be built first"
    table: pd.DataFrame = read_table(path, ["id", "labels", "shard", "status", column], maker).to_pandas()
    if column not in table:
        known = ", ".join(sorted(name for name in pq.read_schema(path).names if name.startswith("subset_")))
        raise UserError(f"{path} has no split {split} (column {column}; it has {known}); see num_splits of {dataset}")
    chosen = table[(table["status"] == "accepted") & (table[column] == subset)]
    return chosen.sort_values("id", kind="stable", ignore_index=True)


def kept_share(ids: Sequence[str], labels: Sequence[tuple[int, ...]], share: float) -> set[str]:
    """A fixed part of each class (by a video's first label): the rounded share, but at least one video.

    Videos are ranked by the SHA-256 of their ids, so that smaller parts lie within larger ones and every run, seed and
    machine gets the same part.

    Args:
        ids: of the videos.
        labels: of each video.
        share: in (0, 1].
    """
    classes: dict[tuple[int, ...], list[str]] = {}
    for id, own in zip(ids, labels, strict=True):
        classes.setdefault(own[:1], []).append(id)
    kept: set[str] = set()
    for members in classes.values():
        ranked = sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest())
        kept.update(ranked[: max(1, round(share * len(members)))])
    return kept


def build_index(
    layout: Layout,
    dataset: str,
    frame_format: str,
    motion: str | None,
    num_shards: int,
    split: int,
    subset: str,
    with_strengths: bool = False,
    share: float = 1.0,
) -> ClipIndex:
    """Join the manifest with the shards' tables.

    Args:
        layout: the output root's layout.
        dataset: name of the data set.
        frame_format: name of the frame format.
        motion: name of the motion kind, or None if only RGB is read.
        num_shards: the data set's number of shards.
        split: official split, from 1.
        subset: ``train`` or ``validation``.
        with_strengths: read the strength tables beside the motion shards too.
        share: of the videos of each class that is kept, in (0, 1]; see ``kept_share``.

    Raises:
        UserError: a manifest or shard is missing or unreadable, a video's class is unknown, or no video remains.
    """
    classes = tuple(read_summary(layout.summary(dataset)).classes)
    class_index = {name: position for position, name in enumerate(classes)}
    listed = _listed(layout, dataset, split, subset)
    names = shard_names(num_shards)
    frames_paths = tuple(layout.frames(dataset, frame_format, name) for name in names)
    motion_paths = tuple(layout.motion(dataset, frame_format, motion, name) for name in names) if motion else ()

    shard_of = {name: position for position, name in enumerate(names)}
    parts: list[_Rows] = []
    origins: list[str] = []
    bound = 0.0
    stored = FLOW_STORED
    for name, group in listed.groupby(listed["shard"].astype(str), sort=True):
        if name not in shard_of:
            raise UserError(
                f"{layout.manifest(dataset)} names shard {name}, but {dataset} has num_shards: {num_shards}. "
                "Build the manifest again."
            )
        position = shard_of[str(name)]
        frames = Shard(frames_paths[position])
        flow = Shard(motion_paths[position]) if motion else None
        origins.append(str(frames.record["content"]))
        if flow is not None:
            origins.append(str(flow.record["content"]))
            quantisation = flow.record["parameters"]["quantisation"]
            bound = float(quantisation["bound"])
            stored = (len(quantisation["channels"]), int(quantisation["zero"]), int(quantisation["scale"]))
        parts.append(_rows_of_shard(position, group, frames, flow))
        frames.close()
        if flow is not None:
            flow.close()
    rows = _Rows.joined(parts)
    if not len(rows.listed):
        raise UserError(
            f"{dataset} has no usable video in the {subset} list of split {split}: the manifest lists {len(listed)}, "
            f"none of them is in the shards of {frame_format}{' and ' + motion if motion else ''}. "
            f"{layout.summary(dataset)} counts what was rejected and why."
        )
    chosen = listed.iloc[rows.listed]
    ids, labels = chosen["id"].tolist(), []
    for id, own in zip(ids, chosen["labels"], strict=True):
        unknown = [label for label in own if label not in class_index]
        if unknown:
            raise UserError(f"{layout.manifest(dataset)}: video {id} has the class {unknown[0]!r}, not in summary.json")
        labels.append(tuple(class_index[label] for label in own))
    if share < 1.0:
        kept = kept_share(ids, labels, share)
        places = np.array([place for place, id in enumerate(ids) if id in kept])
        rows, ids, labels = rows.take(places), [ids[at] for at in places], [labels[at] for at in places]
    inputs = _described(layout, frames_paths) | _described(layout, motion_paths)
    strengths = None
    if motion and with_strengths:
        tables = [layout.strength(dataset, frame_format, motion, name) for name in names]
        strengths, digests = read_strengths(tables, ids, rows.shard, rows.num_frames)
        origins += digests
        inputs |= _described(layout, tables)
    return ClipIndex(
        classes=classes,
        ids=Texts.of(ids),
        labels=Labels.of(labels),
        shards=rows.shard,
        frames_first=rows.first,
        motion_first=rows.motion_first if motion else None,
        video_frames=rows.num_frames,
        heights=rows.height,
        widths=rows.width,
        frames_per_second=rows.frames_per_second,
        frames_paths=frames_paths,
        motion_paths=motion_paths,
        motion_bound=bound,
        motion_stored=stored,
        inputs=inputs,
        strengths=strengths,
        digest=_digest(classes, ids, labels, rows, origins),
    )


@dataclass(frozen=True)
class _Rows:
    """Videos that are in every needed shard; ``listed`` is each one's place in the list, ascending by id."""

    listed: np.ndarray
    shard: np.ndarray
    first: np.ndarray
    motion_first: np.ndarray
    num_frames: np.ndarray
    height: np.ndarray
    width: np.ndarray
    frames_per_second: np.ndarray

    def take(self, places: np.ndarray) -> "_Rows":
        return _Rows(*(column[places] for column in self.__dict__.values()))

    @classmethod
    def joined(cls, parts: Sequence["_Rows"]) -> "_Rows":
        """All parts, in the order of the list."""
        if not parts:
            return cls(*(np.empty(0, dtype=np.int64) for _ in fields(cls)))
        columns = [np.concatenate(column) for column in zip(*(part.__dict__.values() for part in parts), strict=True)]
        return cls(*columns).take(np.argsort(columns[0], kind="stable"))


def _rows_of_shard(position: int, group: pd.DataFrame, frames: Shard, flow: Shard | None) -> _Rows:
    """The listed videos that a shard, and that of its motion, hold."""
    held = [
        (place, frames.index[id], -1 if flow is None else flow.videos[flow.index[id]].first_frame)
        for place, id in zip(group.index, group["id"], strict=True)
        if id in frames.index and (flow is None or id in flow.index)
    ]
    videos = [frames.videos[at] for _, at, _ in held]
    return _Rows(
        listed=np.array([place for place, _, _ in held], dtype=np.int64),
        shard=np.full(len(held), position, dtype=np.int32),
        first=np.array([video.first_frame for video in videos], dtype=np.int64),
        motion_first=np.array([first for _, _, first in held], dtype=np.int64),
        num_frames=np.array([video.num_frames for video in videos], dtype=np.int64),
        height=np.array([video.height for video in videos], dtype=np.int32),
        width=np.array([video.width for video in videos], dtype=np.int32),
        frames_per_second=np.array([video.frames_per_second for video in videos], dtype=np.float64),
    )


def _digest(
    classes: Sequence[str], ids: Sequence[str], labels: Sequence[Sequence[int]], rows: _Rows, origins: Sequence[str]
) -> str:
    """``digest([classes, [[id, labels, frames, height, width], …], origins])``, without all of it in memory at once."""
    told = hashlib.sha256(f"[{canonical_json(list(classes))},[".encode())
    for begin in range(0, len(ids), _DIGEST_ROWS):
        block = slice(begin, begin + _DIGEST_ROWS)
        columns = (rows.num_frames[block].tolist(), rows.height[block].tolist(), rows.width[block].tolist())
        text = canonical_json([list(row) for row in zip(ids[block], labels[block], *columns, strict=True)])
        told.update(f"{',' if begin else ''}{text[1:-1]}".encode())
    told.update(f"],{canonical_json(list(origins))}]".encode())
    return told.hexdigest()


def _described(layout: Layout, paths: Sequence[Path]) -> dict[Path | str, str]:
    """A folder's shards for a record."""
    there = [path for path in paths if path.is_file()]
    if not there:
        return {}
    pattern = there[0].with_name("*" + "".join(there[0].suffixes))
    return {layout.key(pattern) or pattern.name: contents_digest(there)}


class OpenShards:
    """Shards opened lazily, at most ``limit`` at a time, so that a worker stays below the limit of open files."""

    def __init__(self, limit: int = 192) -> None:
        self.limit = limit
        self._open: OrderedDict[Path, Shard] = OrderedDict()

    def __getitem__(self, path: Path) -> Shard:
        shard = self._open.get(path)
        if shard is None:
            shard = Shard(path)
            self._open[path] = shard
            if len(self._open) > self.limit:
                _, oldest = self._open.popitem(last=False)
                oldest.close()
        else:
            self._open.move_to_end(path)
        return shard

    def __getstate__(self) -> dict[str, object]:
        return {"limit": self.limit, "_open": OrderedDict()}

"""Packed shards: the encoded frames of many videos in one HDF5 file, in which a clip is one contiguous read.

Layout of ``{shard}.h5``: ``blob`` uint8 (bytes of all encoded frames, video after video), ``offsets`` int64
(num_frames + 1) into it, ``checksums`` uint32 (num_frames; CRC-32 of each frame's bytes), the tables ``videos`` (id,
first_frame, num_frames, height, width, frames_per_second, sha256 of its frames) and ``rejected`` (id, reason), and the
attribute ``provenance`` (JSON). There is no HDF5 compression (the frames are JPEGs) and no time in the file, so that
equal content gives equal bytes.

Whoever reads frames gets them checked: a training reads few frames of a video, so each has its own checksum. Whoever
reads the tables gets them checked by the digest of the content in the record.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np

from pipeline_lib.artefacts.atomic import atomic_path
from pipeline_lib.artefacts.digest import digest
from pipeline_lib.artefacts.hdf5 import new_hdf5
from pipeline_lib.artefacts.journal import Journal
from pipeline_lib.artefacts.records import Record
from pipeline_lib.artefacts.sealing import DamageError, checksum, damage_named, sealed, unsealed
from pipeline_lib.errors import UserError

_COPY_BYTES = 1 << 24
_FRAMES_AT_A_TIME = 64
_MAKER = "the rules extract_frames and extract_motion make it"
# The columns of the table of videos beside ``id``, in the order of ``ShardVideo``.
_COLUMNS = ("first_frame", "num_frames", "height", "width", "frames_per_second")


@dataclass(frozen=True)
class ShardVideo:
    """One row of a shard's table of videos.

    ``height`` and ``width`` are those of the stored frames in pixels; ``frames_per_second`` is that of the stored
    frames; ``first_frame`` counts from the start of the shard.
    """

    id: str
    first_frame: int
    num_frames: int
    height: int
    width: int
    frames_per_second: float


def _allocate_blob(file: h5py.File, num_bytes: int) -> int:
    """Create the data set ``blob`` with space but without content; returns its place in the file."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    space = h5py.h5s.create_simple((num_bytes,))
    dataset = h5py.h5d.create(file.id, b"blob", h5py.h5t.STD_U8LE, space, creation)
    offset = dataset.get_offset()
    if num_bytes and offset is None:
        raise RuntimeError("HDF5 allocated no space for the blob")
    return int(offset or 0)


def _copy(source: int, source_offset: int, target: int, target_offset: int, length: int) -> None:
    """Copy bytes between files inside the kernel if it can, because a shard's blob has gigabytes."""
    while length:
        try:
            count = os.copy_file_range(source, target, length, source_offset, target_offset)
        except OSError:
            # The kernel cannot copy between these file systems (EXDEV, EINVAL, ENOSYS), so this process does.
            piece = os.pread(source, min(length, _COPY_BYTES), source_offset)
            count = os.pwrite(target, piece, target_offset)
        if count == 0:
            raise OSError("the part ended before its journal says")
        source_offset += count
        target_offset += count
        length -= count


def _write_text(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    group.create_dataset(name, data=np.array(values, dtype=object), dtype=h5py.string_dtype())


def _content(
    ids: Sequence[str], digests: Sequence[str], columns: Sequence[list[Any]], rejected: Sequence[Any], record: Record
) -> str:
    """Digest of a shard's content: its tables with the digest of each video's frames, and how motion is quantised."""
    meaning = record.get("parameters", {}).get("quantisation")
    return digest([ids, digests, columns, rejected, meaning])


class ShardPart:
    """An unfinished shard, which continues after the videos that an interrupted run had finished.

    Use under ``artefact_lock(final)``.

    Args:
        final: path of the finished shard.
        origin: digest of what the shard is made from; see ``Journal``.
    """

    def __init__(self, final: Path, origin: str) -> None:
        self.final = final
        self.journal = Journal(final, origin)
        self.resumed = self.journal.num_resumed

    @property
    def rejected(self) -> dict[str, str]:
        """Reasons of the rejected videos, by id."""
        items = [entry.item for entry in self.journal.entries]
        return {item["id"]: item["reason"] for item in items if "reason" in item}

    @property
    def done(self) -> set[str]:
        """Ids of the videos already stored or rejected."""
        return {entry.item["id"] for entry in self.journal.entries}

    def append(self, id: str, frames: Sequence[bytes], height: int, width: int, frames_per_second: float) -> None:
        """Store one video's encoded frames; when this returns, a kill of the process does not lose them."""
        if not frames:
            raise ValueError(f"{id}: no frames; reject it instead")
        item = {"id": id, "height": height, "width": width, "frames_per_second": frames_per_second}
        item |= {"lengths": [len(frame) for frame in frames], "checksums": [checksum([frame]) for frame in frames]}
        self.journal.append(item, frames)

    def reject(self, id: str, reason: str) -> None:
        """Note that a video cannot be used, and why."""
        self.journal.append({"id": id, "reason": reason})

    def check_rejects(self, num_listed: int, maximum_share: float, key: str) -> None:
        """Refuse to finish a shard with too many unusable videos; the stored videos stay in the part.

        One bad video never fails a shard, however small it is. The rejected videos are forgotten, so that the next
        run tries them again: their disk may have been absent.

        Args:
            num_listed: videos that the shard should hold.
            maximum_share: of them may be rejected, in [0, 1].
            key: the configuration's key of that share, for the message.

        Raises:
            UserError: too many videos are rejected; the message has counts and examples.
        """
        rejected = self.rejected
        if len(rejected) <= 1 or len(rejected) <= maximum_share * num_listed:
            return
        examples = [f"  - {id}: {reason}" for id, reason in list(rejected.items())[:5]]
        self.journal.forget(lambda entry: "reason" in entry.item)
        raise UserError(
            f"{self.final}: {len(rejected)} of {num_listed} videos cannot be used ({len(rejected) / num_listed:.0%}; "
            f"{key} allows {maximum_share:.0%}), e.g.\n" + "\n".join(examples) + "\nNothing that was done is lost: "
            "the same command tries those videos again. Raise the share if they are to be left out."
        )

    def finish(self, record: Record, order: Sequence[str]) -> None:
        """Write the final ``.h5`` atomically, its videos in the given order, and remove the part.

        Args:
            record: stored as the attribute ``provenance``, with the digest of the shard's content. The quantisation
                counts as content, because a reader needs it to understand the bytes.
            order: every id of the shard, in the order of the file, so that an interrupted run, or one whose workers
                finished in another order, gives the same bytes.
        """
        rank = {id: index for index, id in enumerate(order)}
        entries = [entry for entry in self.journal.entries if "lengths" in entry.item]
        starts = {}
        position = 0
        for entry in entries:
            starts[entry.item["id"]] = position
            position += entry.num_bytes
        entries.sort(key=lambda entry: rank[entry.item["id"]])
        items = [entry.item for entry in entries]
        counts = [len(item["lengths"]) for item in items]
        firsts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        offsets = np.zeros(firsts[-1] + 1, dtype=np.int64)
        np.cumsum([length for item in items for length in item["lengths"]], dtype=np.int64, out=offsets[1:])
        rejected = sorted(self.rejected.items(), key=lambda pair: rank[pair[0]])
        table = {
            "first_frame": firsts[:-1],
            "num_frames": np.array(counts, dtype="i8"),
            "height": np.array([item["height"] for item in items], dtype="i4"),
            "width": np.array([item["width"] for item in items], dtype="i4"),
            "frames_per_second": np.array([item["frames_per_second"] for item in items], dtype="f8"),
        }
        ids, checksums = [item["id"] for item in items], [entry.sha256 for entry in entries]
        told = {
            "content": _content(ids, checksums, [column.tolist() for column in table.values()], rejected, record),
            "counts": {"videos": len(ids), "rejected": len(rejected)},
        }
        # A video's row has six numbers and two texts, each with its place and length.
        texts = sum(len(id) for id in ids) + 2 * sum(len(id) + len(reason) for id, reason in rejected)
        num_bytes = offsets.nbytes + 200 * (len(ids) + len(rejected)) + 2 * texts + 2 * len(json.dumps(record))
        with atomic_path(self.final) as temporary, open(self.journal.blob, "rb") as part:
            with new_hdf5(temporary, num_bytes, self.journal.num_bytes) as file:
                blob_offset = _allocate_blob(file, self.journal.num_bytes)
                file.create_dataset("offsets", data=offsets)
                each = [value for item in items for value in item["checksums"]]
                file.create_dataset("checksums", data=np.array(each, dtype="u4"))
                group = file.create_group("videos")
                _write_text(group, "id", ids)
                for name, column in table.items():
                    group.create_dataset(name, data=column)
                _write_text(group, "sha256", checksums)
                group = file.create_group("rejected")
                _write_text(group, "id", [id for id, _ in rejected])
                _write_text(group, "reason", [reason for _, reason in rejected])
                file.attrs["provenance"] = json.dumps(sealed(record | told), sort_keys=True)
            with open(temporary, "r+b") as target:
                for entry in entries:
                    _copy(part.fileno(), starts[entry.item["id"]], target.fileno(), blob_offset, entry.num_bytes)
                    blob_offset += entry.num_bytes
        self.journal.remove()

    def close(self) -> None:
        """Close the part's files; the part stays for a later run."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Stored(NamedTuple):
    """The data sets of the frames, and the size of the blob in bytes."""

    offsets: h5py.Dataset
    checksums: h5py.Dataset
    blob: h5py.Dataset
    size: int


class _Tables(NamedTuple):
    """A shard's small tables."""

    videos: list[ShardVideo]
    digests: list[str]
    rejected: dict[str, str]


class Shard:
    """A finished shard. Each process opens it when it reads, because an HDF5 handle must not cross a fork.

    Everything that it gives has been checked; of what has changed since it was written, a ``DamageError`` says the
    shard and the video.

    Args:
        path: the ``.h5`` file.

    Raises:
        UserError: the file is missing, or the disk does not answer.
        DamageError: it is not a packed shard, or is damaged; the message says how to make it again.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._pid: int | None = None
        self._opened: h5py.File | None = None
        self._stored: _Stored

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_pid": None, "_opened": None}

    @property
    def _file(self) -> h5py.File:
        return self._open()

    def _open(self) -> h5py.File:
        """The file, opened by this process."""
        if self._opened is None or self._pid != os.getpid():
            with damage_named(self.path, _MAKER):
                opened = h5py.File(self.path, "r", locking=False)
                if "checksums" not in opened and "offsets" in opened:
                    raise DamageError(self.path, "its frames have no checksums; an earlier version made it")
                # Looked up once, because a look-up takes longer than the checksums of a clip.
                self._stored = _Stored(opened["offsets"], opened["checksums"], opened["blob"], len(opened["blob"]))
            self._opened, self._pid = opened, os.getpid()
        return self._opened

    @cached_property
    def offsets(self) -> np.ndarray:
        """Byte offsets of the frames in the blob, int64 (num_frames + 1)."""
        file = self._file
        with damage_named(self.path, _MAKER):
            offsets: np.ndarray = file["offsets"][:]
        return offsets

    @cached_property
    def _tables(self) -> _Tables:
        file, record = self._file, self.record
        with damage_named(self.path, _MAKER):
            table, rejected = file["videos"], file["rejected"]
            ids, digests = table["id"].asstr()[:].tolist(), table["sha256"].asstr()[:].tolist()
            columns = [table[name][:].tolist() for name in _COLUMNS]
            rejects = list(zip(rejected["id"].asstr()[:], rejected["reason"].asstr()[:], strict=True))
            rows = [ShardVideo(*row) for row in zip(ids, *columns, strict=True)]
        if _content(ids, digests, columns, rejects, record) != record.get("content"):
            raise DamageError(self.path, "its tables do not agree with the digest of its content")
        return _Tables(rows, digests, dict(rejects))

    @property
    def videos(self) -> list[ShardVideo]:
        """The table of videos, in the order of the blob."""
        return self._tables.videos

    @property
    def num_videos(self) -> int:
        """How many videos the shard holds, without reading their table."""
        file = self._file
        with damage_named(self.path, _MAKER):
            return len(file["videos"]["id"])

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each video id in ``videos``."""
        return {video.id: position for position, video in enumerate(self.videos)}

    @property
    def rejected(self) -> dict[str, str]:
        """Reasons of the rejected videos, by id."""
        return self._tables.rejected

    @cached_property
    def record(self) -> Record:
        """What the shard was made from, and the digest of its content."""
        file = self._file
        with damage_named(self.path, _MAKER):
            stored = json.loads(file.attrs["provenance"])
        return unsealed(stored, self.path, "its record")

    def read(self, video: int, start: int, stop: int) -> list[memoryview]:
        """Encoded frames ``start`` … ``stop − 1`` of a video, in one contiguous read.

        Args:
            video: position in ``videos``.
            start: first frame within the video, ≥ 0.
            stop: one past the last frame, ≤ num_frames.

        Raises:
            IndexError: the frames lie outside the video.
            DamageError: a frame is not as it was written.
        """
        entry = self.videos[video]
        if not 0 <= start < stop <= entry.num_frames:
            raise IndexError(f"frames {start}:{stop} of {entry.id}, which has {entry.num_frames}")
        return self.read_frames(range(entry.first_frame + start, entry.first_frame + stop))

    def read_frames(self, positions: Sequence[int]) -> list[memoryview]:
        """Encoded frames in one contiguous read; only these are checked, not those between them.

        This is for readers that know where their videos lie. It loads neither the table of videos nor all of
        ``offsets`` (8 bytes a frame, half a gigabyte for Kinetics).

        Args:
            positions: ascending, counted from the start of the shard, at least one.

        Raises:
            DamageError: a frame is not as it was written.
        """
        self._open()
        first, stop = positions[0], positions[-1] + 1
        offsets, checksums, blob, size = self._stored
        with damage_named(self.path, _MAKER):
            cached = self.__dict__.get("offsets")
            bounds = offsets[first : stop + 1] if cached is None else cached[first : stop + 1]
            expected = checksums[first:stop].tolist()
            # Before the read, because a damaged offset may ask for the whole blob.
            wrong = len(bounds) != stop - first + 1 or bounds[0] < 0 or bounds[-1] > size or np.any(np.diff(bounds) < 0)
            piece = memoryview(b"" if wrong else blob[bounds[0] : bounds[-1]])
        if wrong:
            raise self._damaged(first, "their offsets are not those that were written")
        cuts = (bounds - bounds[0]).tolist()
        found = []
        for position in positions:
            frame = piece[cuts[position - first] : cuts[position - first + 1]]
            if checksum([frame]) != expected[position - first]:
                raise self._damaged(position, "its bytes do not agree with their checksum")
            found.append(frame)
        return found

    def _damaged(self, position: int, what: str) -> DamageError:
        """The error for a frame of the shard, by the name of its video if the table can still be read."""
        try:
            owners = (video for video in self.videos if 0 <= position - video.first_frame < video.num_frames)
            video = next(owners)
            where = f"video {video.id}, frame {position - video.first_frame}"
        except (UserError, StopIteration):
            where = f"frame {position} of the shard"
        return DamageError(self.path, f"{where}: {what}")

    def verify(self) -> None:
        """Read everything, some frames at a time, and check it.

        Raises:
            UserError: the file is missing, or the disk does not answer.
            DamageError: something is not as it was written.
        """
        for video, expected in zip(self.videos, self._tables.digests, strict=True):
            hasher = hashlib.sha256()
            for start in range(video.first_frame, video.first_frame + video.num_frames, _FRAMES_AT_A_TIME):
                stop = min(start + _FRAMES_AT_A_TIME, video.first_frame + video.num_frames)
                for frame in self.read_frames(range(start, stop)):
                    hasher.update(frame)
            if hasher.hexdigest() != expected:
                raise DamageError(self.path, f"video {video.id}: its bytes do not agree with their digest")

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._opened is not None and self._pid == os.getpid():
            self._opened.close()
            del self._stored
        self._opened = None

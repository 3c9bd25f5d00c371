"""Packed shards: many videos' encoded frames in one HDF5 file, a clip of which is one contiguous read.

Layout of ``{shard}.h5``: ``blob`` uint8 (bytes of all encoded frames, video after video), ``offsets`` int64
(num_frames + 1) into it, the tables ``videos`` (id, first_frame, num_frames, height, width, frames_per_second) and
``rejected`` (id, reason), and the attribute ``provenance`` (JSON). No HDF5 compression (the frames are JPEGs), no
times in the file: equal content gives equal bytes.

While a shard is being made its frames lie in a *part*, an append-only blob and a journal in a folder beside the final
file: an HDF5 file that was open at a kill may be unreadable, an append-only file never loses what was flushed.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from pipeline_lib.artefacts.atomic import atomic_path, write_bytes
from pipeline_lib.errors import UserError

_COPY_BYTES = 1 << 24


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
    """Create the dataset ``blob`` with its space but without its content; returns its place in the file."""
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
    """Copy bytes between files inside the kernel, where it can; a shard's blob is gigabytes."""
    while length:
        try:
            count = os.copy_file_range(source, target, length, source_offset, target_offset)
        except OSError:
            # Not between these file systems (EXDEV, EINVAL, ENOSYS): through this process then.
            piece = os.pread(source, min(length, _COPY_BYTES), source_offset)
            count = os.pwrite(target, piece, target_offset)
        if count == 0:
            raise OSError("the part ended before its journal says")
        source_offset += count
        target_offset += count
        length -= count


class ShardPart:
    """A shard in the making, which goes on from the videos that an interrupted run had finished.

    Use under ``artefact_lock(final)``. The part carries ``digest`` (of specification, code and inputs): a part
    of another digest is set aside and the work starts afresh.

    Args:
        final: path of the finished shard; the part lies beside it in ``.{name}.part``.
        digest: what the part is made from.
    """

    def __init__(self, final: Path, digest: str) -> None:
        self.final = final
        self.folder = final.parent / f".{final.name}.part"
        self.videos: list[ShardVideo] = []
        self.rejected: dict[str, str] = {}
        self.resumed = 0
        self._lengths: list[np.ndarray] = []
        self._blob_bytes = 0
        self._num_frames = 0
        if (self.folder / "digest").is_file() and (self.folder / "digest").read_text() == digest:
            self._resume()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            (self.folder / "blob").touch()
            (self.folder / "journal").touch()
            (self.folder / "digest").write_text(digest)
        self._blob = open(self.folder / "blob", "r+b")
        self._blob.truncate(self._blob_bytes)
        self._blob.seek(self._blob_bytes)
        self._journal = open(self.folder / "journal", "ab")

    def _resume(self) -> None:
        """Take over the journal's complete lines; cut what a kill left unfinished behind them."""
        blob_size = (self.folder / "blob").stat().st_size
        good = 0
        with open(self.folder / "journal", "rb") as journal:
            for line in journal:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n") or entry.get("end", 0) > blob_size:
                    break
                good += len(line)
                if "reason" in entry:
                    self.rejected[entry["id"]] = entry["reason"]
                else:
                    self._account(entry["video"], np.array(entry["lengths"], dtype=np.int64))
                    self._blob_bytes = entry["end"]
        os.truncate(self.folder / "journal", good)
        self.resumed = len(self.videos) + len(self.rejected)

    def _account(self, video: Mapping[str, Any], lengths: np.ndarray) -> None:
        self.videos.append(ShardVideo(**video))
        self._lengths.append(lengths)
        self._num_frames += len(lengths)

    @property
    def done(self) -> set[str]:
        """Ids of the videos already stored or rejected."""
        return {video.id for video in self.videos} | set(self.rejected)

    def append(self, id: str, frames: Sequence[bytes], height: int, width: int, frames_per_second: float) -> None:
        """Store one video's encoded frames; when this returns, a kill of the process does not lose them."""
        if not frames:
            raise ValueError(f"{id}: no frames; reject it instead")
        self._blob.writelines(frames)
        self._blob.flush()
        self._blob_bytes += sum(map(len, frames))
        video = asdict(ShardVideo(id, self._num_frames, len(frames), height, width, frames_per_second))
        lengths = np.array([len(frame) for frame in frames], dtype=np.int64)
        self._record({"video": video, "lengths": lengths.tolist(), "end": self._blob_bytes})
        self._account(video, lengths)

    def reject(self, id: str, reason: str) -> None:
        """Note that a video cannot be used, and why."""
        self._record({"id": id, "reason": reason})
        self.rejected[id] = reason

    def _record(self, entry: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(entry).encode() + b"\n")
        self._journal.flush()

    def check_rejects(self, num_listed: int, maximum_share: float, key: str) -> None:
        """Refuse to finish a shard of which too much is unusable; the videos that are stored stay in the part.

        One bad video never fails a shard, however small it is. The rejected videos are forgotten, so that the next
        run tries them again: their disk may have been away.

        Args:
            num_listed: videos that the shard should hold.
            maximum_share: of them may be rejected, in [0, 1].
            key: the configuration's key of that share, for the message.

        Raises:
            UserError: with the counts and examples.
        """
        if len(self.rejected) <= 1 or len(self.rejected) <= maximum_share * num_listed:
            return
        examples = [f"  - {id}: {reason}" for id, reason in list(self.rejected.items())[:5]]
        num_rejected = len(self.rejected)
        journal = self.folder / "journal"
        lines = [line for line in journal.read_bytes().splitlines(keepends=True) if "reason" not in json.loads(line)]
        self._journal.close()
        write_bytes(journal, b"".join(lines))
        self._journal = open(journal, "ab")
        self.rejected = {}
        raise UserError(
            f"{self.final}: {num_rejected} of {num_listed} videos cannot be used ({num_rejected / num_listed:.0%}; "
            f"{key} allows {maximum_share:.0%}), e.g.\n" + "\n".join(examples) + "\nNothing that was done is lost: "
            "the same command tries those videos again. Raise the share if they are to be left out."
        )

    def finish(self, provenance: Mapping[str, Any], order: Sequence[str]) -> None:
        """Write the final ``.h5`` atomically, its videos in the given order, and remove the part.

        Args:
            provenance: stored as the attribute ``provenance``; see ``artefacts.provenance``.
            order: every id of the shard, in the order that the file shall have, so that an interrupted run, or one
                whose workers finished in another order, gives the same bytes.
        """
        rank = {id: index for index, id in enumerate(order)}
        index_of = {video.id: index for index, video in enumerate(self.videos)}
        chosen = sorted(self.videos, key=lambda video: rank[video.id])
        starts = np.concatenate([[0], np.cumsum([lengths.sum() for lengths in self._lengths], dtype=np.int64)])
        videos: list[ShardVideo] = []
        lengths: list[np.ndarray] = []
        pieces: list[tuple[int, int]] = []
        with atomic_path(self.final) as temporary, open(self.folder / "blob", "rb") as part:
            with h5py.File(temporary, "w") as file:
                blob_offset = _allocate_blob(file, self._blob_bytes)
                first_frame = 0
                for video in chosen:
                    index = index_of[video.id]
                    pieces.append((int(starts[index]), int(starts[index + 1] - starts[index])))
                    videos.append(ShardVideo(**(asdict(video) | {"first_frame": first_frame})))
                    lengths.append(self._lengths[index])
                    first_frame += video.num_frames
                offsets = np.zeros(first_frame + 1, dtype=np.int64)
                if lengths:
                    np.cumsum(np.concatenate(lengths), out=offsets[1:])
                file.create_dataset("offsets", data=offsets)
                text = h5py.string_dtype()
                table = file.create_group("videos")
                table.create_dataset("id", data=np.array([v.id for v in videos], dtype=object), dtype=text)
                for name, kind in (("first_frame", "i8"), ("num_frames", "i8"), ("height", "i4"), ("width", "i4")):
                    table.create_dataset(name, data=np.array([getattr(v, name) for v in videos], dtype=kind))
                rates = np.array([v.frames_per_second for v in videos], dtype="f8")
                table.create_dataset("frames_per_second", data=rates)
                rejected = sorted(self.rejected.items(), key=lambda item: rank[item[0]])
                group = file.create_group("rejected")
                group.create_dataset("id", data=np.array([i for i, _ in rejected], dtype=object), dtype=text)
                group.create_dataset("reason", data=np.array([r for _, r in rejected], dtype=object), dtype=text)
                file.attrs["provenance"] = json.dumps(provenance, sort_keys=True)
            with open(temporary, "r+b") as target:
                for start, length in pieces:
                    _copy(part.fileno(), start, target.fileno(), blob_offset, length)
                    blob_offset += length
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Close the part's files; the part stays for a later run."""
        self._blob.close()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Shard:
    """A finished shard, opened lazily in each process that reads it (an HDF5 handle must not cross a fork).

    Args:
        path: the ``.h5`` file.

    Raises:
        UserError: the file is missing or is no packed shard; the message says which stage makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._pid: int | None = None
        self._opened: h5py.File | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_pid": None, "_opened": None}

    @property
    def _file(self) -> h5py.File:
        if self._opened is None or self._pid != os.getpid():
            try:
                self._opened = h5py.File(self.path, "r")
                self._opened["offsets"]
            except (OSError, KeyError) as error:
                raise UserError(
                    f"{self.path} cannot be read as a packed shard ({error}). Delete it and run the same target again: "
                    "Snakemake makes it anew."
                ) from error
            self._pid = os.getpid()
            self.__dict__.pop("_blob", None)
        return self._opened

    @cached_property
    def offsets(self) -> np.ndarray:
        """Byte offsets of the frames in the blob, int64 (num_frames + 1)."""
        offsets: np.ndarray = self._file["offsets"][:]
        return offsets

    @cached_property
    def videos(self) -> list[ShardVideo]:
        """The table of videos, in the order of the blob."""
        table = self._file["videos"]
        ids = table["id"].asstr()[:]
        columns = [table[name][:].tolist() for name in ("first_frame", "num_frames", "height", "width")]
        return [ShardVideo(*row) for row in zip(ids, *columns, table["frames_per_second"][:].tolist(), strict=True)]

    @property
    def num_videos(self) -> int:
        """How many videos the shard holds, without reading their table."""
        return len(self._file["videos"]["id"])

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each video id in ``videos``."""
        return {video.id: position for position, video in enumerate(self.videos)}

    @cached_property
    def rejected(self) -> dict[str, str]:
        """Reasons of the rejected videos, by id."""
        table = self._file["rejected"]
        return dict(zip(table["id"].asstr()[:], table["reason"].asstr()[:], strict=True))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the shard was made from."""
        record: dict[str, Any] = json.loads(self._file.attrs["provenance"])
        return record

    def read(self, video: int, start: int, stop: int) -> list[memoryview]:
        """Encoded frames ``start`` … ``stop − 1`` of a video, in one contiguous read.

        Args:
            video: position in ``videos``.
            start: first frame within the video, ≥ 0.
            stop: one past the last frame, ≤ num_frames.

        Raises:
            IndexError: the frames lie outside the video.
        """
        entry = self.videos[video]
        if not 0 <= start < stop <= entry.num_frames:
            raise IndexError(f"frames {start}:{stop} of {entry.id}, which has {entry.num_frames}")
        return self.read_frames(entry.first_frame + start, entry.first_frame + stop)

    def read_frames(self, first: int, stop: int) -> list[memoryview]:
        """Encoded frames ``first`` … ``stop − 1``, counted from the start of the shard, in one contiguous read.

        For readers that know where their videos lie: neither the table of videos nor the whole of ``offsets`` (8 bytes
        a frame, half a gigabyte for Kinetics) is loaded.
        """
        cached = self.__dict__.get("offsets")
        bounds = self._file["offsets"][first : stop + 1] if cached is None else cached[first : stop + 1]
        piece = memoryview(self._file["blob"][bounds[0] : bounds[-1]])
        cuts = (bounds - bounds[0]).tolist()
        return [piece[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._opened is not None and self._pid == os.getpid():
            self._opened.close()
        self._opened = None

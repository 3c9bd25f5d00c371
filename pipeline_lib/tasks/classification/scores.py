"""Score files: the logits of every evaluated clip and the videos' labels, written and read as streams.

Layout of ``scores.h5``: ``clips/video`` int32 (row of the video), ``clips/start`` int64 (first frame), ``clips/crop``
int8, ``clips/logits`` float32 (num_clips, num_classes), sorted by video, start and crop; ``videos/id``,
``videos/subset`` and the labels as ``videos/label_offsets`` and ``videos/label_indices``; ``classes`` and
``provenance`` as JSON. ``clips/checksums`` uint32 has the CRC-32 of every ``CLIPS_PER_CHECKSUM`` clips, the record the
digest of everything else, so that a reader checks what it reads and no more. Sports-1M's logits (100 clips of 226,000
videos) are 44 GB, so nothing here holds those of more than some thousand clips.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import h5py
import numpy as np

from pipeline_lib.artefacts.atomic import atomic_path
from pipeline_lib.artefacts.digest import canonical_json, digest
from pipeline_lib.artefacts.hdf5 import new_hdf5
from pipeline_lib.artefacts.journal import Journal
from pipeline_lib.artefacts.records import ContentDigest, Record
from pipeline_lib.artefacts.sealing import DamageError, checksum, damage_named, sealed, unsealed
from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json

CLIPS_AT_A_TIME = 1 << 14
CLIPS_PER_CHECKSUM = 1 << 8
_MAKER = "the rules evaluate_run and ensemble make it"
_COLUMNS = (("start", "<i8"), ("crop", "i1"), ("logits", "<f4"))


@dataclass(frozen=True)
class LabelledVideo:
    """An evaluated video: its id, its subset, and the names of its classes."""

    id: str
    subset: str
    labels: tuple[str, ...]


class Clips(NamedTuple):
    """Some clips, in the order of a score file.

    ``video`` int32 (N,) row of each clip's video, ``starts`` int64 (N,) first frames (−1 where a row stands for a whole
    video), ``crops`` int8 (N,), ``logits`` float32 (N, num_classes).
    """

    video: np.ndarray
    starts: np.ndarray
    crops: np.ndarray
    logits: np.ndarray


class Scores(Protocol):
    """The scores of some videos, in memory or in a file.

    Attributes:
        videos: the evaluated videos, sorted by id.
        classes: class names in the order of the logits.
        counts: int64 (num_videos,), clips of each video.
        record: what the scores were made from (``artefacts.records``).
    """

    videos: tuple[LabelledVideo, ...]
    classes: tuple[str, ...]
    counts: np.ndarray
    record: Record

    def read(self, first: int, last: int) -> Clips:
        """Clips ``first`` … ``last − 1``."""
        ...


def pieces(scores: Scores) -> Iterator[Clips]:
    """All clips, some thousand at a time."""
    num_clips = int(scores.counts.sum())
    for first in range(0, num_clips, CLIPS_AT_A_TIME):
        yield scores.read(first, min(first + CLIPS_AT_A_TIME, num_clips))


def video_pieces(scores: Scores) -> Iterator[tuple[slice, Clips]]:
    """All clips in pieces of some thousand, each of whole videos, with the rows of these videos."""
    ends = np.cumsum(scores.counts)
    first = clip = 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, clip + CLIPS_AT_A_TIME, side="right")))
        yield slice(first, last), scores.read(clip, int(ends[last - 1]))
        first, clip = last, int(ends[last - 1])


def label_indices(scores: Scores) -> list[list[int]]:
    """Class indices of each video's labels.

    Raises:
        UserError: a label is none of the network's classes.
    """
    index = {name: position for position, name in enumerate(scores.classes)}
    try:
        return [[index[label] for label in video.labels] for video in scores.videos]
    except KeyError as error:
        raise UserError(
            f"the label {error.args[0]!r} of an evaluated video is none of the network's {len(scores.classes)} "
            "classes: it was trained on another data set or another version of its annotations."
        ) from error


def manifest_of(scores: Scores) -> dict[str, str]:
    """The manifest's summary as the record names it, with its digest; empty when unknown."""
    named = {**scores.record.get("inputs", {}), **scores.record.get("beside", {})}
    return {name: value for name, value in named.items() if name.startswith("manifests/")}


def manifest_digest(scores: Scores) -> str:
    """Digest of the manifest whose videos were evaluated (empty when unknown)."""
    return next(iter(manifest_of(scores).values()), "")


def same_clips(first: Scores, second: Scores) -> bool:
    """Whether both hold the same clips (video, start and crop) in the same order."""
    if [video.id for video in first.videos] != [video.id for video in second.videos]:
        return False
    if not np.array_equal(first.counts, second.counts):
        return False
    return all(
        np.array_equal(a.starts, b.starts) and np.array_equal(a.crops, b.crops)
        for a, b in zip(pieces(first), pieces(second), strict=True)
    )


class MemoryScores:
    """Scores in memory, for example of a validation during training.

    Args:
        videos: sorted by id.
        classes: class names in the order of the logits.
        clips: sorted by video.
        record: what they were made from.

    Raises:
        ValueError: shapes disagree, a video has no clip, or the videos are not sorted by id.
    """

    def __init__(self, videos: Iterable[LabelledVideo], classes: Sequence[str], clips: Clips, record: Record) -> None:
        self.videos, self.classes, self.record = tuple(videos), tuple(classes), record
        num_clips, num_classes = clips.logits.shape
        if num_classes != len(self.classes) or not len(clips.video) == len(clips.starts) == num_clips:
            raise ValueError(
                f"logits {clips.logits.shape} for {len(self.classes)} classes and {len(clips.video)} clips"
            )
        # Already sorted, as an evaluation is, the logits are not copied.
        order: Any = np.lexsort((clips.crops, clips.starts, clips.video))
        order = slice(None) if np.array_equal(order, np.arange(num_clips)) else order
        self._clips = Clips(*(column[order] for column in clips))
        self.counts = np.bincount(clips.video, minlength=len(self.videos)).astype(np.int64)
        if len(self.counts) != len(self.videos) or not self.counts.all():
            raise ValueError("every video of a score file has at least one clip")

    def read(self, first: int, last: int) -> Clips:
        """Clips ``first`` … ``last − 1``."""
        return Clips(*(column[first:last] for column in self._clips))


class ScoreFile:
    """A score file, whose logits stay on the disk.

    Raises:
        UserError: the file is missing; the message says which stage makes it.
        DamageError: it is not a score file, or not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with damage_named(path, _MAKER), h5py.File(path, "r", locking=False) as file:
            table = file["videos"]
            self.classes = tuple(parse_json(file["classes"].asstr()[()]))
            self.record: Record = unsealed(parse_json(file["provenance"].asstr()[()]), path, "its record")
            offsets, indices = table["label_offsets"][:].tolist(), table["label_indices"][:].tolist()
            self.videos = tuple(
                LabelledVideo(id, subset, tuple(self.classes[label] for label in indices[first:last]))
                for id, subset, first, last in zip(
                    table["id"].asstr()[:], table["subset"].asstr()[:], offsets[:-1], offsets[1:], strict=True
                )
            )
            rows = file["clips/video"][:]
            self.counts = np.bincount(rows, minlength=len(self.videos)).astype(np.int64)
            self._checksums = file["clips/checksums"][:].tolist()
        if np.any(np.diff(rows) < 0) or self.record.get("tables") != _tables_digest(
            self.videos, self.classes, self.counts.tolist(), self._checksums
        ):
            raise DamageError(path, "its tables do not agree with their digest")

    def read(self, first: int, last: int) -> Clips:
        """Clips ``first`` … ``last − 1``.

        Raises:
            DamageError: they are not as they were written.
        """
        begin = first - first % CLIPS_PER_CHECKSUM
        end = min(-(-last // CLIPS_PER_CHECKSUM) * CLIPS_PER_CHECKSUM, int(self.counts.sum()))
        with damage_named(self.path, _MAKER), h5py.File(self.path, "r", locking=False) as file:
            clips = file["clips"]
            video, starts, crops, logits = (clips[name][begin:end] for name in ("video", "start", "crop", "logits"))
        for position in range(begin, end, CLIPS_PER_CHECKSUM):
            rows = slice(position - begin, position - begin + CLIPS_PER_CHECKSUM)
            found = _clips_checksum(starts[rows], crops[rows], logits[rows])
            if found != self._checksums[position // CLIPS_PER_CHECKSUM]:
                raise DamageError(self.path, f"the clips from {position} on do not agree with their checksum")
        place = slice(first - begin, last - begin)
        return Clips(video[place], starts[place], crops[place], logits[place])


def check(path: Path) -> None:
    """Read a score file as a whole, some thousand clips at a time.

    Raises:
        UserError: the file is missing.
        DamageError: it is not as it was written.
    """
    for _ in pieces(ScoreFile(path)):
        pass


def _clips_checksum(starts: np.ndarray, crops: np.ndarray, logits: np.ndarray) -> int:
    columns = zip((starts, crops, logits), _COLUMNS, strict=True)
    return checksum(np.ascontiguousarray(column, kind).tobytes() for column, (_, kind) in columns)


def _tables_digest(
    videos: Sequence[LabelledVideo], classes: Sequence[str], counts: Sequence[int], checksums: Sequence[int]
) -> str:
    """Digest of all that a score file holds beside its clips, and of their checksums."""
    rows = [[video.id, video.subset, list(video.labels)] for video in videos]
    return digest([rows, list(classes), counts, checksums])


class SomeVideos:
    """Some of the videos of other scores, which stay where they are.

    Args:
        scores: of more videos.
        ids: of those that are kept, each among them.
    """

    def __init__(self, scores: Scores, ids: Collection[str]) -> None:
        wanted = frozenset(ids)
        self._scores = scores
        self._kept = np.array([video.id in wanted for video in scores.videos])
        self._ends = np.cumsum(scores.counts)
        self.videos = tuple(video for video in scores.videos if video.id in wanted)
        self.classes, self.record = scores.classes, scores.record
        self.counts = scores.counts[self._kept]
        self._rows = np.flatnonzero(self._kept)
        self._own_ends = np.cumsum(self.counts)

    def read(self, first: int, last: int) -> Clips:
        """Clips ``first`` … ``last − 1`` of the kept videos."""
        if last <= first:
            return self._scores.read(0, 0)
        low, high = np.searchsorted(self._own_ends, [first, last - 1], side="right")
        rows = slice(self._rows[low], self._rows[high] + 1)
        counts = self._scores.counts[rows]
        found = self._scores.read(int(self._ends[rows.start] - counts[0]), int(self._ends[rows.stop - 1]))
        kept = np.repeat(self._kept[rows], counts)
        begin = int(self._own_ends[low] - self.counts[low])
        place = slice(first - begin, last - begin)
        found = Clips(*(column[kept][place] for column in found))
        own = np.repeat(np.arange(low, high + 1, dtype=np.int32), self.counts[low : high + 1])
        return found._replace(video=own[place])


def of_common_videos(scores: Sequence[Scores], names: Sequence[str]) -> list[Scores]:
    """The scores of the videos that all have: one stage may have rejected a video that another one could use.

    Args:
        scores: of one manifest.
        names: of each, for messages.

    Raises:
        UserError: they are of different manifests, or have no video in common.
    """
    for name, one in zip(names, scores, strict=True):
        if manifest_digest(one) != manifest_digest(scores[0]):
            raise UserError(
                f"{names[0]} and {name} were evaluated on different manifests "
                f"({manifest_digest(scores[0])[:12] or 'unknown'} and {manifest_digest(one)[:12] or 'unknown'}). "
                "Evaluate both again on the same one: snakemake does so when both are targets."
            )
    common = set.intersection(*({video.id for video in one.videos} for one in scores))
    if not common:
        raise UserError(f"{' and '.join(dict.fromkeys(names))} have no video in common.")
    return [one if len(one.videos) == len(common) else SomeVideos(one, common) for one in scores]


def _noted(clips: Iterable[Clips], content: ContentDigest) -> Iterator[Clips]:
    """The clips as they come, counted in the digest of the content."""
    for piece in clips:
        for column, (_, kind) in zip(piece[1:], _COLUMNS, strict=True):
            content.add("", np.ascontiguousarray(column, kind).tobytes())
        yield piece


def _regular(clips: Iterable[Clips]) -> Iterator[Clips]:
    """The same clips in pieces of ``CLIPS_PER_CHECKSUM``; the last one may be shorter."""
    waiting: list[Clips] = []
    count = 0
    for piece in clips:
        position, size = 0, len(piece.starts)
        while position < size:
            end = min(position + CLIPS_PER_CHECKSUM - count, size)
            # A copy, because a view would keep its whole piece in memory.
            waiting.append(Clips(*(column[position:end].copy() for column in piece)))
            count += end - position
            position = end
            if count == CLIPS_PER_CHECKSUM:
                yield _joined(waiting)
                waiting, count = [], 0
    if count:
        yield _joined(waiting)


def _joined(clips: Sequence[Clips]) -> Clips:
    return Clips(*(np.concatenate(columns) for columns in zip(*clips, strict=True)))


def write_scores(
    path: Path,
    videos: Sequence[LabelledVideo],
    classes: Sequence[str],
    counts: np.ndarray,
    clips: Iterable[Clips],
    record: Record,
) -> None:
    """Write a score file atomically.

    Args:
        path: of the file.
        videos: sorted by id.
        classes: class names in the order of the logits.
        counts: (num_videos,), clips of each video, at least one.
        clips: all of them in order, in pieces of any size; ``video`` follows from ``counts`` and is not read.
        record: stored with the digest of the file's content.

    Raises:
        ValueError: the videos are not unique and sorted, or a video has no clip.
    """
    ids = [video.id for video in videos]
    if ids != sorted(set(ids)):
        raise ValueError("the videos of a score file are unique and sorted by id")
    if len(counts) != len(ids) or not np.all(counts):
        raise ValueError("every video of a score file has at least one clip")
    num_clips, text = int(counts.sum()), h5py.string_dtype()
    index = {name: position for position, name in enumerate(classes)}
    labels = [[index[label] for label in video.labels] for video in videos]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in labels], dtype=np.int64)]).astype(np.int64)
    content = ContentDigest()
    content.add("videos", canonical_json([[video.id, video.subset, video.labels] for video in videos]).encode())
    content.add("classes", canonical_json(list(classes)).encode())
    # Twice the texts, because each has a place and a length beside it. A clip is its logits, video, start and crop.
    texts = sum(len(video.id) + len(video.subset) + 64 for video in videos) + sum(len(name) + 8 for name in classes)
    num_bytes = num_clips * (4 * len(classes) + 13) + 2 * texts + 4 * int(offsets[-1]) + 2 * len(json.dumps(record))
    with atomic_path(path) as temporary:
        with new_hdf5(temporary, num_bytes) as file:
            group = file.create_group("clips")
            group.create_dataset("video", data=np.repeat(np.arange(len(ids), dtype=np.int32), counts))
            starts = group.create_dataset("start", (num_clips,), np.int64)
            crops = group.create_dataset("crop", (num_clips,), np.int8)
            logits = group.create_dataset("logits", (num_clips, len(classes)), np.float32)
            position, checksums = 0, []
            for piece in _regular(_noted(clips, content)):
                rows = slice(position, position + len(piece.starts))
                starts[rows], crops[rows], logits[rows] = piece.starts, piece.crops, piece.logits
                checksums.append(_clips_checksum(piece.starts, piece.crops, piece.logits))
                position = rows.stop
            group.create_dataset("checksums", data=np.array(checksums, np.uint32))
            if position != num_clips:
                raise ValueError(f"{position} clips came for {num_clips}")
            group = file.create_group("videos")
            group.create_dataset("id", data=np.array(ids, dtype=object), dtype=text)
            subsets = np.array([video.subset for video in videos], dtype=object)
            group.create_dataset("subset", data=subsets, dtype=text)
            group.create_dataset("label_offsets", data=offsets)
            group.create_dataset("label_indices", data=np.array([one for own in labels for one in own], np.int32))
            # These are data sets, because HDF5 limits an attribute to 64 kB, which a long list of classes exceeds.
            told = {"videos": len(ids), "clips": num_clips, "classes": len(classes)}
            tables = _tables_digest(videos, classes, counts.tolist(), checksums)
            stored = sealed({**record, "content": content.hexdigest(), "tables": tables, "counts": told})
            for name, value in (("classes", list(classes)), ("provenance", stored)):
                file.create_dataset(name, data=json.dumps(value, sort_keys=True, ensure_ascii=False), dtype=text)


class ScoresPart:
    """An unfinished score file, which continues after the videos that an interrupted run had finished.

    Use under ``artefact_lock(final)``.

    Args:
        final: path of the finished file.
        origin: digest of what the scores are made from; see ``Journal``.
        num_classes: columns of the logits.
    """

    def __init__(self, final: Path, origin: str, num_classes: int) -> None:
        self.final, self.num_classes = final, num_classes
        self._journal = Journal(final, origin)
        self.resumed = self._journal.num_resumed
        self.done = {entry.item["id"] for entry in self._journal.entries}

    def append(self, id: str, starts: np.ndarray, crops: np.ndarray, logits: np.ndarray) -> None:
        """Store one video's clips; when this returns, a kill of the process does not lose them.

        Raises:
            ValueError: the logits have another number of classes or of clips.
        """
        if logits.shape != (len(starts), self.num_classes):
            raise ValueError(f"{id}: logits {logits.shape} for {len(starts)} clips")
        columns = zip((starts, crops, logits), _COLUMNS, strict=True)
        data = [np.ascontiguousarray(column, kind).tobytes() for column, (_, kind) in columns]
        self._journal.append({"id": id, "clips": len(starts)}, data)
        self.done.add(id)

    def _read(self, ids: Sequence[str]) -> Iterator[Clips]:
        """The clips of the videos in this order, those of one at a time."""
        places, position = {}, 0
        for entry in self._journal.entries:
            places[entry.item["id"]] = (position, entry.item["clips"])
            position += entry.num_bytes
        with open(self._journal.blob, "rb") as blob:
            for id in ids:
                position, count = places[id]
                blob.seek(position)
                starts = np.frombuffer(blob.read(8 * count), "<i8")
                crops = np.frombuffer(blob.read(count), "i1")
                logits = np.frombuffer(blob.read(4 * count * self.num_classes), "<f4").reshape(count, -1)
                order = np.lexsort((crops, starts))
                yield Clips(np.zeros(count, np.int32), starts[order], crops[order], logits[order])

    def finish(self, videos: Iterable[LabelledVideo], classes: Sequence[str], record: Record) -> ScoreFile:
        """Write the final file atomically and remove the part; return what was written.

        Args:
            videos: the videos of the file; each has been appended.
            classes: class names in the order of the logits.
            record: see ``artefacts.records``.
        """
        ordered = sorted(videos, key=lambda video: video.id)
        clips = {entry.item["id"]: entry.item["clips"] for entry in self._journal.entries}
        counts = np.array([clips[video.id] for video in ordered], dtype=np.int64)
        write_scores(self.final, ordered, classes, counts, self._read([video.id for video in ordered]), record)
        self._journal.remove()
        return ScoreFile(self.final)

    def close(self) -> None:
        """Close the part's files; the part stays for a later run."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

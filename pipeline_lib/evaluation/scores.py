"""Score files: the logits of every evaluated clip, from which every figure is computed without a network.

Layout of ``scores.h5``: the group ``clips`` with ``video`` int32 (row in ``videos``), ``start`` int64 (first frame,
counted from the start of the video), ``crop`` int8 and ``logits`` float32 (num_clips, num_classes); the group
``videos`` with ``id`` and ``subset`` (text), ``label_offsets`` int64 (num_videos + 1) into ``label_indices`` int32;
and ``classes`` (JSON list of names, in the order of the logits) and ``provenance`` (JSON). Rows are sorted
by video, start and crop, and no times are stored: equal content gives equal bytes.

An evaluation in the making lies in a *part*, an append-only blob and a journal in a folder beside the final file, so
that a killed one goes on from the videos that it had finished.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from pipeline_lib.artefacts.atomic import atomic_path
from pipeline_lib.errors import UserError


@dataclass(frozen=True)
class LabelledVideo:
    """A video as the evaluation sees it: its id, the subset it belongs to, and the names of its classes."""

    id: str
    subset: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class VideoScores:
    """The clips of one video.

    ``starts`` int64 (N,) first frames, ``crops`` int8 (N,), ``logits`` float32 (N, num_classes).
    """

    starts: np.ndarray
    crops: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Scores:
    """A score file in memory.

    Attributes:
        videos: the evaluated videos, sorted by id.
        classes: class names in the order of the logits.
        video: int32 (num_clips,) row of each clip's video.
        starts: int64 (num_clips,) first frame of each clip; −1 where a row stands for a whole video.
        crops: int8 (num_clips,) index of the crop; 0 where there is one.
        logits: float32 (num_clips, num_classes).
        provenance: what the file was made from (``artefacts.provenance``).
    """

    videos: tuple[LabelledVideo, ...]
    classes: tuple[str, ...]
    video: np.ndarray
    starts: np.ndarray
    crops: np.ndarray
    logits: np.ndarray
    provenance: Mapping[str, Any]

    @cached_property
    def targets(self) -> list[list[int]]:
        """Class indices of each video's labels.

        Raises:
            UserError: a label is none of the network's classes.
        """
        index = {name: position for position, name in enumerate(self.classes)}
        try:
            return [[index[label] for label in video.labels] for video in self.videos]
        except KeyError as error:
            raise UserError(
                f"the label {error.args[0]!r} of an evaluated video is none of the network's {len(self.classes)} "
                "classes: it was trained on another data set or another version of its annotations."
            ) from error

    @property
    def manifest_digest(self) -> str:
        """Digest of the manifest whose videos were evaluated (empty when unknown)."""
        return next(iter(self.manifest.values()), "")

    @property
    def manifest(self) -> dict[str, str]:
        """The manifest's summary as records name it, with its digest; empty when unknown."""
        named = {**self.provenance.get("inputs", {}), **self.provenance.get("beside", {})}
        return {name: value for name, value in named.items() if name.startswith("manifests/")}

    @property
    def video_ids(self) -> list[str]:
        """Ids of the evaluated videos, in the order of ``videos``."""
        return [video.id for video in self.videos]

    def same_clips(self, other: "Scores") -> bool:
        """Whether both files hold the same clips (video, start and crop) in the same order."""
        return self.video_ids == other.video_ids and all(
            np.array_equal(a, b)
            for a, b in ((self.video, other.video), (self.starts, other.starts), (self.crops, other.crops))
        )


def write_scores(path: Path, scores: Scores) -> None:
    """Write a score file atomically, its clips sorted by video, start and crop.

    Raises:
        ValueError: shapes disagree, a video has no clip, or the videos are not sorted by id.
    """
    num_clips, num_classes = scores.logits.shape
    if num_classes != len(scores.classes) or not len(scores.video) == len(scores.starts) == num_clips:
        raise ValueError(
            f"logits {scores.logits.shape} for {len(scores.classes)} classes and {len(scores.video)} clips"
        )
    if scores.video_ids != sorted(set(scores.video_ids)):
        raise ValueError("the videos of a score file are unique and sorted by id")
    if set(scores.video.tolist()) != set(range(len(scores.videos))):
        raise ValueError("every video of a score file has at least one clip")
    ranks = np.lexsort((scores.crops, scores.starts, scores.video))
    # Already sorted, as an evaluation is, the logits of 100 clips a video are not copied.
    order = slice(None) if np.array_equal(ranks, np.arange(num_clips)) else ranks
    offsets = np.zeros(len(scores.videos) + 1, dtype=np.int64)
    np.cumsum([len(labels) for labels in scores.targets], out=offsets[1:])
    indices = np.array([label for labels in scores.targets for label in labels], dtype=np.int32)
    text = h5py.string_dtype()
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w") as file:
            clips = file.create_group("clips")
            clips.create_dataset("video", data=scores.video[order].astype(np.int32))
            clips.create_dataset("start", data=scores.starts[order].astype(np.int64))
            clips.create_dataset("crop", data=scores.crops[order].astype(np.int8))
            clips.create_dataset("logits", data=scores.logits[order].astype(np.float32, copy=False))
            videos = file.create_group("videos")
            videos.create_dataset("id", data=np.array(scores.video_ids, dtype=object), dtype=text)
            subsets = np.array([video.subset for video in scores.videos], dtype=object)
            videos.create_dataset("subset", data=subsets, dtype=text)
            videos.create_dataset("label_offsets", data=offsets)
            videos.create_dataset("label_indices", data=indices)
            # Data sets, not attributes: HDF5 limits an attribute to 64 kB, which a long list of classes exceeds.
            for name, value in (("classes", list(scores.classes)), ("provenance", dict(scores.provenance))):
                file.create_dataset(name, data=json.dumps(value, sort_keys=True, ensure_ascii=False), dtype=text)


def read_scores(path: Path) -> Scores:
    """Read a score file.

    Raises:
        UserError: the file is missing or is no score file; the message says which stage makes it.
    """
    try:
        with h5py.File(path, "r") as file:
            clips, table = file["clips"], file["videos"]
            classes = tuple(json.loads(file["classes"].asstr()[()]))
            provenance = json.loads(file["provenance"].asstr()[()])
            offsets, indices = table["label_offsets"][:], table["label_indices"][:]
            videos = tuple(
                LabelledVideo(id, subset, tuple(classes[label] for label in indices[offsets[row] : offsets[row + 1]]))
                for row, (id, subset) in enumerate(zip(table["id"].asstr()[:], table["subset"].asstr()[:], strict=True))
            )
            return Scores(
                videos,
                classes,
                clips["video"][:],
                clips["start"][:],
                clips["crop"][:],
                clips["logits"][:],
                provenance,
            )
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a score file ({error}). The rules evaluate and ensemble make it: delete it if "
            "it is there, and run the same target again."
        ) from error


class ScoresPart:
    """A score file in the making. Use under ``artefact_lock(final)``.

    Args:
        final: path of the finished file; the part lies beside it in ``.{name}.part``.
        digest: what the scores are made from; a part of another digest is set aside and the work starts afresh.
        num_classes: columns of the logits.
    """

    def __init__(self, final: Path, digest: str, num_classes: int) -> None:
        self.final, self.num_classes = final, num_classes
        self.folder = final.parent / f".{final.name}.part"
        self.scores: dict[str, VideoScores] = {}
        mark = self.folder / "digest"
        if not (mark.is_file() and mark.read_text() == digest):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            (self.folder / "blob").touch()
            (self.folder / "journal").touch()
            mark.write_text(digest)
        self._resume()
        self.resumed = len(self.scores)
        self._blob = open(self.folder / "blob", "ab")
        self._journal = open(self.folder / "journal", "ab")

    def _resume(self) -> None:
        """Take over the journal's complete lines; cut what a kill left unfinished behind them."""
        blob = (self.folder / "blob").read_bytes()
        good = read = 0
        with open(self.folder / "journal", "rb") as journal:
            for line in journal:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                count = len(entry["starts"])
                end = read + 4 * count * self.num_classes
                if not line.endswith(b"\n") or end > len(blob):
                    break
                logits = np.frombuffer(blob[read:end], dtype="<f4").reshape(count, self.num_classes)
                self.scores[entry["id"]] = VideoScores(
                    np.array(entry["starts"], dtype=np.int64), np.array(entry["crops"], dtype=np.int8), logits
                )
                good, read = good + len(line), end
        os.truncate(self.folder / "journal", good)
        os.truncate(self.folder / "blob", read)

    def append(self, id: str, scores: VideoScores) -> None:
        """Store one video's clips; when this returns, a kill of the process does not lose them.

        Raises:
            ValueError: the logits have another number of classes or of clips.
        """
        if scores.logits.shape != (len(scores.starts), self.num_classes):
            raise ValueError(f"{id}: logits {scores.logits.shape} for {len(scores.starts)} clips")
        self._blob.write(np.ascontiguousarray(scores.logits, dtype="<f4").tobytes())
        self._blob.flush()
        entry = {"id": id, "starts": scores.starts.tolist(), "crops": scores.crops.tolist()}
        self._journal.write(json.dumps(entry).encode() + b"\n")
        self._journal.flush()
        self.scores[id] = scores

    def finish(self, videos: Iterable[LabelledVideo], classes: Sequence[str], provenance: Mapping[str, Any]) -> Scores:
        """Write the final file atomically and remove the part; return what was written.

        Args:
            videos: the videos of the file; each has been appended.
            classes: class names in the order of the logits.
            provenance: see ``artefacts.provenance``.
        """
        ordered = tuple(sorted(videos, key=lambda video: video.id))
        pieces = [self.scores.pop(video.id) for video in ordered]
        counts = [len(piece.starts) for piece in pieces]
        starts = np.concatenate([piece.starts for piece in pieces])
        crops = np.concatenate([piece.crops for piece in pieces])
        logits = np.empty((len(starts), self.num_classes), dtype=np.float32)
        row = len(logits)
        # Each piece is freed once it is copied.
        while pieces:
            piece = pieces.pop()
            logits[row - len(piece.starts) : row] = piece.logits
            row -= len(piece.starts)
        video_rows = np.repeat(np.arange(len(ordered), dtype=np.int32), counts)
        scores = Scores(ordered, tuple(classes), video_rows, starts, crops, logits, provenance)
        write_scores(self.final, scores)
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return scores

    def close(self) -> None:
        """Close the part's files; the part stays for a later run."""
        self._blob.close()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

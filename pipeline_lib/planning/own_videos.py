"""What lies in a user's folder: the classes, the sources, and how large, long and fast a sample of the videos is."""

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.configuration.data import Dataset, Motion
from pipeline_lib.errors import UserError
from pipeline_lib.flow.methods import create_method
from pipeline_lib.manifests.annotation_files import SUBSET_NAMES, sniff_rows
from pipeline_lib.manifests.build import reason_code
from pipeline_lib.manifests.importers import read_listing
from pipeline_lib.manifests.matching import VIDEO_ENDINGS, FileIndex, is_hidden, match
from pipeline_lib.manifests.pool import probe_each
from pipeline_lib.manifests.schema import ListedVideo, Listing
from pipeline_lib.manifests.source_groups import recognised, sources_of
from pipeline_lib.media.decoder import DecodingError, DecodingOptions, decode_video

SAMPLE = 32
"""Videos that are decoded whole to measure them, at most."""
SECONDS_PER_VIDEO, SECONDS = 20.0, 60.0
"""Limits of the measurement: for one video, and for all."""
MOTION_VIDEOS, MOTION_FRAMES = 8, 6
"""Videos whose flow is measured, and consecutive frames of each."""
VALIDATION_SHARE = 0.2
LISTS = SUBSET_NAMES | {"test": "validation", "testing": "validation"}


@dataclass(frozen=True)
class OwnVideos:
    """A user's videos, listed.

    Attributes:
        dataset: how they are read: format, lists, folder, sources and share of the validation list.
        videos: as they are listed, each with its list and its source.
        grouping: what counts as a source, as the end of a sentence; empty if each video is one.
        is_divided: whether the folder or the list names training and validation itself.
        skipped: files that are no video of it, by what is unusual about them.
    """

    dataset: Dataset
    videos: tuple[ListedVideo, ...]
    grouping: str
    is_divided: bool
    skipped: dict[str, int]

    @property
    def classes(self) -> list[str]:
        """The names of the classes, sorted."""
        return sorted({label for video in self.videos for label in video.labels})

    @property
    def num_sources(self) -> int:
        """Sources; a video without a group is one."""
        return len({video.group or video.id for video in self.videos})

    def count(self, subset: str) -> int:
        """Videos of a list, ``train`` or ``validation``."""
        return sum(video.subsets[0] == subset for video in self.videos)


@dataclass(frozen=True)
class Measured:
    """What a sample of the videos is like; each array has one entry per decoded video.

    Attributes:
        short_sides: int, pixels.
        rates: float, frames per second.
        num_frames: int.
        problems: reason → how many videos of the sample cannot be used for it.
    """

    short_sides: np.ndarray
    rates: np.ndarray
    num_frames: np.ndarray
    problems: dict[str, int]

    @property
    def seconds(self) -> np.ndarray:
        """Lengths, seconds."""
        return np.asarray(self.num_frames / self.rates)


def _names_videos(path: Path, folder: Path) -> bool:
    """Whether a CSV lists videos of a folder: it has the columns, and one of its first paths leads to a file."""
    try:
        rows = [row["path"] for _, row in itertools.islice(sniff_rows(path, ("path", "label")), 20)]
    except (UserError, OSError):
        return False
    files = FileIndex([str(folder)])
    return any(files.find(row) for row in rows)


def _lists_of(folder: Path) -> dict[str, str]:
    """The CSVs that list a folder's videos, in it or beside it, by the name of their list.

    Raises:
        UserError: several do, and their names do not say which list each is.
    """
    for place in (folder, folder.parent):
        candidates = sorted(path for path in place.glob("*.csv") if path.is_file() and not is_hidden(path.name))
        found = [path for path in candidates[:20] if _names_videos(path, folder)]
        if len(found) == 1:
            return {"train": str(found[0])}
        if found:
            named = {LISTS[path.stem.lower()]: str(path) for path in found if path.stem.lower() in LISTS}
            if len(named) < len(found):
                names = ", ".join(str(path) for path in found)
                raise UserError(
                    f"{folder}: several CSVs list its videos ({names}). Call them train.csv and validation.csv, or say "
                    "which one counts: --list FILE."
                )
            return named
    return {}


def _whole_listing(folder: Path, lists: dict[str, str]) -> tuple[Dataset, Listing]:
    """The data set that a folder is, and its listing.

    Raises:
        UserError: there is no class folder with a video.
    """
    if lists:
        dataset = Dataset(format="table", annotations=dict(lists), videos=[str(folder)])
        return dataset, read_listing(dataset)
    inner = sorted(child for child in folder.iterdir() if child.is_dir() and not is_hidden(child.name))
    # An archive often unpacks to one folder more, beside a README.
    for place in (folder, *(inner if len(inner) == 1 else [])):
        dataset = Dataset(format="folder", videos=[str(place)])
        try:
            return dataset, read_listing(dataset)
        except UserError:
            continue
    files = [path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS]
    if files:
        raise UserError(
            f"{folder}: {len(files)} videos lie in it, but in no folder per class. Put each into a folder that is "
            "called like its class (walk/one.mp4), or write a CSV with the columns path,label into the folder."
        )
    raise UserError(
        f"{folder}: there is no video in it. Looked for files that end in {' '.join(sorted(VIDEO_ENDINGS))}, in a "
        "folder per class, and for a CSV with the columns path,label."
    )


def look(folder: Path, chosen: Path | None = None) -> OwnVideos:
    """List the videos of a folder and divide them.

    Args:
        folder: with a folder per class, or with a CSV (path,label[,group][,subset]) in it or beside it.
        chosen: the CSV to take.

    Raises:
        UserError: there are no videos, or all are of one class.
    """
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder.")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file. Give the folder that holds the videos.")
    folder = folder.resolve()
    if chosen is not None and not chosen.is_file():
        raise UserError(f"--list {chosen}: there is no such file.")
    lists = {"train": str(chosen.resolve())} if chosen is not None else _lists_of(folder)
    dataset, listing = _whole_listing(folder, lists)
    videos = listing.videos
    labels = {label for video in videos for label in video.labels}
    if len(labels) < 2:
        raise UserError(
            f"{folder}: all {len(videos)} videos are of one class ({', '.join(sorted(labels)) or 'no name'}). A "
            "network learns to tell classes apart: give at least two."
        )
    # A whole table is divided here only if nothing in it, and no second list, names the lists.
    undivided = read_listing(dataset.model_copy(update={"validation_share": 0.0})).videos
    is_divided = any(video.subsets[0] == "validation" for video in undivided)
    has_groups = any(video.group for video in videos)
    rule = None if has_groups or is_divided else recognised(videos)
    grouping = "the CSV's column `group`" if has_groups else rule.about if rule is not None else ""
    changes: dict[str, object] = {"group_pattern": None if rule is None else rule.pattern}
    if not is_divided:
        changes["validation_share"] = _share(videos, rule.pattern if rule is not None else None)
    dataset = dataset.model_copy(update=changes)
    listing = read_listing(dataset)
    own = OwnVideos(dataset, tuple(listing.videos), grouping, is_divided, listing.skipped)
    for subset in ("train", "validation"):
        if not own.count(subset):
            where = ", ".join(lists.values()) or str(folder)
            raise UserError(
                f"{where}: no video is for {subset}. Where videos are divided by hand, both lists need some; without a "
                "column `subset`, or with one folder per class, they are divided here. A class needs two sources."
            )
    return own


def _share(videos: Sequence[ListedVideo], pattern: str | None) -> float:
    """A fifth; more where a class has so few sources that a fifth is a single one, but at most a third."""
    if pattern is not None:
        sources = sources_of(videos, pattern)
    else:
        sources = {}
        for video in videos:
            sources.setdefault(video.group or video.id, set()).add(video.labels)
    counted = Counter(labels for held in sources.values() for labels in held)
    return round(max(VALIDATION_SHARE, min(1 / 3, 2 / min(counted.values()))), 2)


def _sample(videos: Sequence[ListedVideo], num: int) -> list[ListedVideo]:
    """So many videos, always the same ones, whatever their order."""
    ranked = sorted(videos, key=lambda video: hashlib.sha256(video.id.encode("utf-8", "backslashreplace")).digest())
    return ranked[:num]


def measure(own: OwnVideos, num_workers: int) -> tuple[Measured, list[Path]]:
    """Decode a sample of the videos.

    Args:
        own: the videos.
        num_workers: decoding processes.

    Returns:
        What was measured, and the files of the sample that decode.

    Raises:
        UserError: none decodes; the message counts the reasons.
    """
    sample = _sample(own.videos, SAMPLE)
    paths = match(sample, FileIndex(own.dataset.videos))
    problems = Counter({"missing": paths.count("")} if "" in paths else {})
    found = []
    deadline = time.monotonic() + SECONDS
    probes = probe_each(sorted({path for path in paths if path}), num_workers, True, SECONDS_PER_VIDEO)
    with closing(probes):  # type: ignore[type-var]
        for path, probe in probes:
            short = min(probe.height or 0, probe.width or 0)
            if probe.problem or not probe.num_frames or not probe.frames_per_second:
                problems[reason_code(probe.problem) or "no rate"] += 1
            else:
                found.append((path, short, probe.frames_per_second, probe.num_frames))
            if time.monotonic() > deadline and found:
                break
    if not found:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in problems.most_common())
        raise UserError(
            f"{', '.join(own.dataset.videos)}: none of the {len(sample)} videos that were tried can be used "
            f"({reasons}). docs/manifests.md explains the reasons."
        )
    found.sort()
    files, sides, rates, frames = zip(*found, strict=True)
    measured = Measured(np.array(sides), np.array(rates, float), np.array(frames), dict(problems))
    return measured, [Path(file) for file in files]


def motion_quantile(
    files: Sequence[Path], short_side: int, frames_per_second: float | None, num_threads: int, quantile: float = 0.995
) -> float:
    """How far the pixels of some videos move from one stored frame to the next, at most: a quantile, pixels.

    Args:
        files: videos; of the first ``MOTION_VIDEOS`` some frames from their middle are taken.
        short_side: of the stored frames, pixels.
        frames_per_second: of the stored frames; None is the native rate.
        num_threads: of the flow.
        quantile: of |u| and |v| over all pixels.
    """
    method = create_method(Motion(method="tvl1"), torch.device("cpu"), num_threads)
    values = []
    for file in files[:: max(1, len(files) // MOTION_VIDEOS)][:MOTION_VIDEOS]:
        options = DecodingOptions(short_side, frames_per_second, keep_damaged=True, stall_seconds=SECONDS_PER_VIDEO)
        frames: list[np.ndarray] = []
        try:
            with decode_video(file, replace(options, end=4.0)) as raw:
                frames.extend(luma.copy() for luma, _, _ in raw)
        except DecodingError:
            pass
        first = max(0, (len(frames) - MOTION_FRAMES) // 2)
        chosen = frames[first : first + MOTION_FRAMES]
        if len(chosen) > 1:
            values.append(method.motion(np.stack(chosen), 1).abs().flatten())
    return float(np.quantile(torch.cat(values).numpy(), quantile)) if values else 0.0

"""Reduced data sets: lists of ids or classes, the largest classes, or counts drawn with a seed."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.configuration.data import Filter
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.matching import YOUTUBE_ID_LENGTH
from pipeline_lib.manifests.schema import ListedVideo
from pipeline_lib.manifests.text_files import read_lines


def _lines(path: str) -> set[str]:
    try:
        lines = read_lines(Path(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file; it must have one name a line.") from error
    return {line for line in lines if not line.startswith("#")}


def _rank(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{id}".encode()).digest()


def _draw(
    videos: Sequence[ListedVideo], counts: dict[Any, int], seed: int, part: Callable[[ListedVideo], object]
) -> list[ListedVideo]:
    """Keep the ``counts[subset]`` videos of each part of each list whose seeded hash is smallest."""
    parts: dict[tuple[str, object], list[ListedVideo]] = defaultdict(list)
    for video in videos:
        parts[video.subsets[0], part(video)].append(video)
    kept: set[str] = set()
    for (subset, _), members in parts.items():
        ranked = sorted(members, key=lambda video: _rank(seed, video.id))
        kept.update(video.id for video in ranked[: counts.get(subset, len(ranked))])
    return [video for video in videos if video.id in kept]


def _largest_classes(videos: Sequence[ListedVideo], num_classes: int) -> set[str]:
    """The classes with the most training videos in the first split; of equal ones those whose names come first."""
    counts = Counter(label for video in videos if video.subsets[0] == "train" for label in set(video.labels))
    return set(sorted(counts, key=lambda label: (-counts[label], label))[:num_classes])


def apply_filter(videos: Sequence[ListedVideo], settings: Filter) -> list[ListedVideo]:
    """Keep the videos of a reduced data set, in their order.

    Args:
        videos: with unique ids. Videos are drawn from what is listed, not from what lies on disk, so that two people
            who miss different files draw the same ones.
        settings: the filter; ids may be video ids or YouTube ids (11 characters, all intervals).

    Raises:
        UserError: a list cannot be read, or nothing is left.
    """
    result = list(videos)
    if settings.ids is not None:
        wanted = {
            Path(line).stem if line.endswith((".mp4", ".mkv", ".webm")) else line for line in _lines(settings.ids)
        }
        youtube = {id for id in wanted if len(id) == YOUTUBE_ID_LENGTH}
        result = [video for video in result if video.id in wanted or video.id[:YOUTUBE_ID_LENGTH] in youtube]
    if settings.classes is not None:
        names = _lines(settings.classes)
        unknown = names - {label for video in videos for label in video.labels}
        if unknown:
            raise UserError(
                f"{settings.classes}: no video of the data set has the label(s) {', '.join(sorted(unknown)[:5])}; "
                "one class name a line, spelled as in the annotations."
            )
        result = [video for video in result if names.intersection(video.labels)]
    if settings.largest_classes is not None:
        names = _largest_classes(result, settings.largest_classes)
        if len(names) < settings.largest_classes:
            raise UserError(
                f"filter.largest_classes: {settings.largest_classes} classes are wanted, but only {len(names)} have "
                "training videos."
            )
        result = [video for video in result if names.intersection(video.labels)]
    if settings.per_class:
        result = _draw(result, dict(settings.per_class), settings.seed, lambda video: video.labels)
    if settings.total:
        result = _draw(result, dict(settings.total), settings.seed, lambda _: None)
    if videos and not result:
        raise UserError(
            f"the filter leaves no video: ids {settings.ids}, classes {settings.classes}, "
            f"largest_classes {settings.largest_classes}, per_class {dict(settings.per_class)}, "
            f"total {dict(settings.total)}."
        )
    return result


def filter_identity(settings: Filter) -> dict[str, Any]:
    """The filter as plain data, its lists as digests; it enters the manifest's digest."""
    identity = settings.model_dump()
    for key in ("ids", "classes"):
        if identity[key] is not None:
            identity[key] = file_digest(Path(identity[key]))
    return identity

"""Reduced data sets: a list of ids or classes, or counts drawn with a seed."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.configuration.data import Filter
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.matching import YOUTUBE_ID_LENGTH
from pipeline_lib.manifests.schema import ListedClip


def _lines(path: str) -> set[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file; it shall have one name a line.") from error
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")}


def _rank(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{id}".encode()).digest()


def _draw(
    clips: Sequence[ListedClip], counts: dict[Any, int], seed: int, part: Callable[[ListedClip], object]
) -> list[ListedClip]:
    """Keep, of each part of each list, the ``counts[list]`` clips whose seeded hash is smallest."""
    parts: dict[tuple[str, object], list[ListedClip]] = defaultdict(list)
    for clip in clips:
        parts[clip.subsets[0], part(clip)].append(clip)
    kept: set[str] = set()
    for (subset, _), members in parts.items():
        ranked = sorted(members, key=lambda clip: _rank(seed, clip.id))
        kept.update(clip.id for clip in ranked[: counts.get(subset, len(ranked))])
    return [clip for clip in clips if clip.id in kept]


def apply_filter(clips: Sequence[ListedClip], settings: Filter) -> list[ListedClip]:
    """Keep the clips of a reduced data set, in their order.

    Args:
        clips: with unique ids. Counts are drawn from what is listed, not from what lies on disk, so that two people
            with different missing videos draw the same clips.
        settings: the filter; ids may be clip ids or YouTube ids (11 characters, all intervals).

    Raises:
        UserError: a list cannot be read, or nothing is left.
    """
    result = list(clips)
    if settings.ids is not None:
        wanted = {
            Path(line).stem if line.endswith((".mp4", ".mkv", ".webm")) else line for line in _lines(settings.ids)
        }
        youtube = {id for id in wanted if len(id) == YOUTUBE_ID_LENGTH}
        result = [clip for clip in result if clip.id in wanted or clip.id[:YOUTUBE_ID_LENGTH] in youtube]
    if settings.classes is not None:
        names = _lines(settings.classes)
        unknown = names - {label for clip in clips for label in clip.labels}
        if unknown:
            raise UserError(
                f"{settings.classes}: no clip of the data set has the label(s) {', '.join(sorted(unknown)[:5])}; "
                "one class name a line, spelled as in the annotations."
            )
        result = [clip for clip in result if names.intersection(clip.labels)]
    if settings.per_class:
        result = _draw(result, dict(settings.per_class), settings.seed, lambda clip: clip.labels)
    if settings.total:
        result = _draw(result, dict(settings.total), settings.seed, lambda _: None)
    if clips and not result:
        raise UserError(
            f"the filter leaves no clip: ids {settings.ids}, classes {settings.classes}, "
            f"per_class {dict(settings.per_class)}, total {dict(settings.total)}."
        )
    return result


def filter_identity(settings: Filter) -> dict[str, Any]:
    """The filter as plain data with the digests of its lists: a part of the manifest's digest."""
    identity = settings.model_dump()
    for key in ("ids", "classes"):
        if identity[key] is not None:
            identity[key] = file_digest(Path(identity[key]))
    return identity

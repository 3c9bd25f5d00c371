"""The two formats for a user's own videos: a CSV with path and label, or a folder per class."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import (
    CLASS_LIST,
    SUBSET_NAMES,
    annotation,
    class_list,
    named_sources,
    number,
    sniff_rows,
)
from pipeline_lib.manifests.content import printable
from pipeline_lib.manifests.matching import VIDEO_ENDINGS, is_hidden, split_ending
from pipeline_lib.manifests.schema import UNLABELLED, ListedVideo, Listing, subset_columns

LIST_NAMES = SUBSET_NAMES | {"test": "validation", "testing": "validation", UNLABELLED: UNLABELLED, "": ""}
"""What a key, a column or a folder calls a list → how it is called here."""


def group_of(id: str, pattern: str | None) -> str:
    """The source of a video by its id: what the groups of a pattern match in it; empty where it does not match.

    Args:
        id: of the video.
        pattern: ``group_pattern`` of the data set.
    """
    found = re.search(pattern, id) if pattern is not None else None
    return "/".join(part for part in found.groups() if part) if found is not None else ""


def _rank(unit: str) -> bytes:
    # A name that is not UTF-8 belongs to a video that is rejected later.
    return hashlib.sha256(unit.encode("utf-8", "backslashreplace")).digest()


def draw_validation(videos: Sequence[ListedVideo], share: float) -> list[ListedVideo]:
    """Divide videos that belong to no list: of each class, the share with the smallest hashes becomes validation.

    A group goes to one side as a whole, because videos of one source look alike. A video's side depends on the hash of
    its id or group and on the other videos of its class, never on the order of the list.

    Args:
        videos: with any subsets, which are replaced.
        share: of each class, in [0, 1); rounded up to one unit where a class has two or more.
    """
    units_of_class: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for video in videos:
        units_of_class[video.labels].add(video.group or video.id)
    validation: set[str] = set()
    training: set[str] = set()
    for labels in sorted(units_of_class):
        ranked = sorted(units_of_class[labels], key=_rank)
        wanted = round(len(ranked) * share) or (1 if share > 0 and len(ranked) > 1 else 0)
        # An earlier class may have placed a group that holds several classes.
        wanted -= sum(unit in validation for unit in ranked)
        for unit in ranked:
            if unit in validation or unit in training:
                continue
            if wanted > 0:
                validation.add(unit)
                wanted -= 1
            else:
                training.add(unit)
    return [
        video._replace(
            subsets=tuple("validation" if (video.group or video.id) in validation else "train" for _ in video.subsets)
        )
        for video in videos
    ]


def _subset(text: str, path: Path, line: int, column: str) -> str:
    try:
        return LIST_NAMES[text.lower()]
    except KeyError:
        raise UserError(
            f"{path}:{line}: {column} is {text!r:.200}; it must be train, validation (or val, test), unlabelled or "
            "empty."
        ) from None


def _interval(row: dict[str, str], path: Path, line: int) -> tuple[float | None, float | None]:
    """Start and end of the video within its file, seconds; both None if the video is the whole file."""
    texts = {column: row[column] for column in ("start", "end") if row.get(column)}
    if not texts:
        return None, None
    if len(texts) == 1:
        raise UserError(f"{path}:{line}: {next(iter(texts))} is given alone; start and end belong together.")
    start, end = (number(texts[column], path, line, column) for column in ("start", "end"))
    if not 0 <= start < end:
        raise UserError(f"{path}:{line}: the part from {start:g} to {end:g} s is empty or begins before 0.")
    return start, end


def read_table(dataset: Dataset) -> Listing:
    """Read CSVs with the columns ``path`` and ``label``.

    ``label`` may hold several labels with ``|`` between them. Optional columns: ``subset`` (or ``split``) for one
    split, ``subset_1`` … for several, ``group`` (videos of one source), ``start`` and ``end`` (seconds: the video is
    only this part of the file; another part is another video). Without a column of subsets a video belongs to the list
    that the key of its CSV names (``train``, ``validation`` or ``unlabelled``). Without both, a share of each class
    becomes validation. ``annotations.labels`` may name a file with one class a line; a label that is not in it is
    unknown.

    Raises:
        UserError: a column is missing or a value is not allowed.
    """
    videos: list[ListedVideo] = []
    undivided: list[ListedVideo] = []
    paths = []
    columns = subset_columns(dataset.num_splits)
    lists = {key: value for key, value in dataset.annotations.items() if value and key != CLASS_LIST}
    for key in lists:
        path = annotation(dataset, key)
        paths.append(path)
        for line, row in sniff_rows(path, ("path", "label")):
            if not row["path"]:
                raise UserError(f"{path}:{line}: path is empty.")
            names = (row["path"],)
            labels = tuple(label.strip() for label in row["label"].split("|") if label.strip())
            start, end = _interval(row, path, line)
            subsets: tuple[str, ...] = ()
            if all(column in row for column in columns):
                subsets = tuple(_subset(row[column], path, line, column) for column in columns)
            elif dataset.num_splits == 1 and ("subset" in row or "split" in row):
                column = "subset" if "subset" in row else "split"
                subsets = (_subset(row[column], path, line, column),)
            elif key.lower() in LIST_NAMES and (key != "train" or len(lists) > 1):
                subsets = (LIST_NAMES[key.lower()],) * dataset.num_splits
            id, trim = split_ending(row["path"])[0], start is not None
            group = row.get("group") or group_of(id, dataset.group_pattern)
            if trim:
                id = f"{id}_{start:.2f}_{end:.2f}"
                # Parts of one file look alike.
                group = group or row["path"]
            lists_of = subsets or ("",) * dataset.num_splits
            video = ListedVideo(id, labels, lists_of, names, start, end, group, trim=trim)
            (videos if subsets else undivided).append(video)
    videos += draw_validation(undivided, dataset.validation_share)
    classes = class_list(dataset)
    if classes is not None:
        paths.append(annotation(dataset, CLASS_LIST))
    return Listing(videos, named_sources(paths), classes)


def class_folders(root: Path) -> Iterator[tuple[Path, str]]:
    """The class folders below a folder of videos, and the list that each belongs to (empty if none is named).

    Where it holds ``train`` and ``validation`` (or ``val``, ``test``) with class folders inside, those are the lists.
    """
    children = sorted(child for child in root.iterdir() if child.is_dir() and not is_hidden(child.name))
    lists = [
        child for child in children if child.name.lower() in LIST_NAMES and any(c.is_dir() for c in child.iterdir())
    ]
    for parent, subset in [(child, LIST_NAMES[child.name.lower()]) for child in lists] or [(root, "")]:
        for folder in sorted(child for child in parent.iterdir() if child.is_dir() and not is_hidden(child.name)):
            yield folder, subset


def read_folder(dataset: Dataset) -> Listing:
    """List ``class/video.ext`` below each video folder.

    Where a video folder holds ``train`` and ``validation`` (or ``val``, ``test``) with the class folders inside, those
    are the lists; otherwise a share of each class becomes validation. Other files are counted as skipped: videos in
    deeper folders or beside the class folders, and unknown endings.

    Raises:
        UserError: no class folder with a video is found.
    """
    videos: list[ListedVideo] = []
    undivided: list[ListedVideo] = []
    for root in map(Path, dataset.videos):
        for folder, subset in class_folders(root):
            for file in sorted(folder.iterdir()):
                if file.suffix.lower() not in VIDEO_ENDINGS or is_hidden(file.name):
                    continue
                name = str(file.relative_to(root))
                id = split_ending(name)[0]
                lists_of = (subset,) * dataset.num_splits
                group = group_of(id, dataset.group_pattern)
                video = ListedVideo(id, (folder.name,), lists_of, (name,), group=group)
                (videos if subset else undivided).append(video)
    if not videos and not undivided:
        raise UserError(
            f"no class folder with a video lies in {', '.join(dataset.videos)}; looked for class/video with the "
            f"endings {' '.join(sorted(VIDEO_ENDINGS))}. docs/manifests.md shows the layout."
        )
    chosen = {name for video in (*videos, *undivided) for name in video.names}
    skipped = _skipped(dataset.videos, chosen)
    return Listing(videos + draw_validation(undivided, dataset.validation_share), {}, skipped=skipped)


def _skipped(roots: Sequence[str], chosen: set[str]) -> dict[str, int]:
    """How many files below some folders are none of the chosen ones (names relative to their folder), and why."""
    counts: Counter[str] = Counter()
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not is_hidden(name)]
            for file in files:
                name = os.path.relpath(f"{folder}/{file}", root)
                if is_hidden(file) or name in chosen:
                    continue
                ending = printable(split_ending(file)[1])
                if ending in VIDEO_ENDINGS:
                    counts["not directly in a class folder"] += 1
                else:
                    counts[f"ending {ending}" if ending else "no ending"] += 1
    return dict(sorted(counts.items()))

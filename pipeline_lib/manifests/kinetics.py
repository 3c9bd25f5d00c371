"""Kinetics-400, -600 and -700: the official CSVs and the crawler's JSON.

The CSV's columns are label, youtube_id, time_start, time_end, split and, in some editions, is_cc (ActivityNet's
Crawler/Kinetics folder). The JSON maps a YouTube id to ``annotations`` (label, segment) and ``subset``. One YouTube id
may be listed with several intervals: each is a video of its own.
"""

from pathlib import Path

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import (
    CLASS_LIST,
    SUBSET_NAMES,
    annotation,
    class_list,
    finite,
    named_sources,
    number,
    sniff_rows,
)
from pipeline_lib.manifests.schema import ListedVideo, Listing
from pipeline_lib.manifests.text_files import read_text
from pipeline_lib.plain_data import parse_json


def video_id(youtube_id: str, start: float, end: float) -> str:
    """``{youtube_id}_{start:06d}_{end:06d}``, the name that every copy of Kinetics gives its files."""
    return f"{youtube_id}_{int(start):06d}_{int(end):06d}"


def _subset(key: str, named: str) -> str:
    """The list by the configuration's key, otherwise by the file's own column."""
    return SUBSET_NAMES.get(key, SUBSET_NAMES.get(named, ""))


def _read_csv(path: Path, key: str) -> list[ListedVideo]:
    videos = []
    # Half a million videos share some hundred labels, so equal tuples are stored once.
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    for line, row in sniff_rows(path, ("label", "youtube_id", "time_start", "time_end")):
        youtube = row["youtube_id"]
        if not youtube:
            raise UserError(f"{path}:{line}: youtube_id is empty.")
        start = number(row["time_start"], path, line, "time_start")
        end = number(row["time_end"], path, line, "time_end")
        name = video_id(youtube, start, end)
        labels: tuple[str, ...] = (row["label"],) if row["label"] else ()
        subsets: tuple[str, ...] = (_subset(key, row.get("split", "")),)
        labels, subsets = same.setdefault(labels, labels), same.setdefault(subsets, subsets)
        videos.append(ListedVideo(name, labels, subsets, (name,), start, end))
    return videos


def _read_json(path: Path, key: str) -> list[ListedVideo]:
    try:
        content = parse_json(read_text(path))
        videos = []
        for youtube, entry in content.items():
            annotations = entry["annotations"]
            start, end = (finite(value) for value in annotations["segment"])
            name = video_id(youtube, start, end)
            label = (annotations.get("label") or "").strip()
            subset = _subset(key, entry.get("subset", ""))
            videos.append(ListedVideo(name, (label,) if label else (), (subset,), (name,), start, end))
        return videos
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a Kinetics JSON ({type(error).__name__}: {error}): it must map each YouTube id to "
            "annotations (label, segment) and subset."
        ) from error


def read(dataset: Dataset) -> Listing:
    """Read all lists of a Kinetics edition.

    Args:
        dataset: its ``annotations`` name ``train`` and ``validation`` (CSV or JSON) and may name more lists;
            ``labels`` may name a file with one class a line.

    Raises:
        UserError: a file is not in the format; the message names file, line and column.
    """
    videos: list[ListedVideo] = []
    paths = []
    for key, value in dataset.annotations.items():
        if value is None or key == CLASS_LIST:
            continue
        path = annotation(dataset, key)
        paths.append(path)
        videos += _read_json(path, key) if path.suffix == ".json" else _read_csv(path, key)
    classes = class_list(dataset)
    if classes is not None:
        paths.append(annotation(dataset, CLASS_LIST))
    return Listing(videos, named_sources(paths), classes)

"""Kinetics-400, -600 and -700: the official CSVs and the crawler's JSON.

The CSV's columns are label, youtube_id, time_start, time_end, split and, in some editions, is_cc (ActivityNet's
Crawler/Kinetics folder). The JSON maps a YouTube id to ``annotations`` (label, segment) and ``subset``. One id may be
listed with several intervals: those are different clips.
"""

import json
from pathlib import Path

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import (
    CLASS_LIST,
    annotation,
    class_list,
    named_sources,
    number,
    sniff_rows,
)
from pipeline_lib.manifests.schema import ListedClip, Listing

_SUBSETS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "validate": "validation",
    "validation": "validation",
}


def clip_id(youtube_id: str, start: float, end: float) -> str:
    """``{youtube_id}_{start:06d}_{end:06d}``, the name that every copy of Kinetics gives its files."""
    return f"{youtube_id}_{int(start):06d}_{int(end):06d}"


def _subset(key: str, named: str) -> str:
    """The list that the configuration's key names, else the one that the file's own column names."""
    return _SUBSETS.get(key, _SUBSETS.get(named, ""))


def _read_csv(path: Path, key: str) -> list[ListedClip]:
    clips = []
    # Half a million clips of some hundred labels: each label and each list is kept once.
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    for line, row in sniff_rows(path, ("label", "youtube_id", "time_start", "time_end")):
        youtube = row["youtube_id"]
        if not youtube:
            raise UserError(f"{path}:{line}: youtube_id is empty.")
        start = number(row["time_start"], path, line, "time_start")
        end = number(row["time_end"], path, line, "time_end")
        name = clip_id(youtube, start, end)
        labels: tuple[str, ...] = (row["label"],) if row["label"] else ()
        subsets: tuple[str, ...] = (_subset(key, row.get("split", "")),)
        labels, subsets = same.setdefault(labels, labels), same.setdefault(subsets, subsets)
        clips.append(ListedClip(name, labels, subsets, (name,), start, end))
    return clips


def _read_json(path: Path, key: str) -> list[ListedClip]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        clips = []
        for youtube, entry in content.items():
            annotations = entry["annotations"]
            start, end = (float(value) for value in annotations["segment"])
            name = clip_id(youtube, start, end)
            label = annotations.get("label")
            subset = _subset(key, entry.get("subset", ""))
            clips.append(ListedClip(name, (label,) if label else (), (subset,), (name,), start, end))
        return clips
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no Kinetics JSON ({type(error).__name__}: {error}): it shall map each YouTube id to "
            "annotations (label, segment) and subset."
        ) from error


def read(dataset: Dataset) -> Listing:
    """Read all lists of a Kinetics edition.

    Args:
        dataset: its ``annotations`` have ``train`` and ``validation`` (CSV or JSON), and further ones if wanted;
            ``labels`` may name the list of classes, one a line.

    Raises:
        UserError: a file is not in the format; the message names file, line and column.
    """
    clips: list[ListedClip] = []
    paths = []
    for key, value in dataset.annotations.items():
        if value is None or key == CLASS_LIST:
            continue
        path = annotation(dataset, key)
        paths.append(path)
        clips += _read_json(path, key) if path.suffix == ".json" else _read_csv(path, key)
    classes = class_list(dataset)
    if classes is not None:
        paths.append(annotation(dataset, CLASS_LIST))
    return Listing(clips, named_sources(paths), classes)

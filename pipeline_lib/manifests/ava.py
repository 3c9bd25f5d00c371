"""AVA v2.1 and v2.2: keyframes with boxes and actions, excluded timestamps, one manifest row per film."""

import csv
import re
from collections import defaultdict
from pathlib import Path

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import DOCUMENT, annotation, named_sources, number
from pipeline_lib.manifests.schema import Box, ListedVideo, Listing
from pipeline_lib.manifests.text_files import csv_lines, read_text

# The 15 minutes of each film that are annotated (AVA, section 3: from the 15th to the 30th minute); keyframes are the
# seconds 902 to 1798, and the margin leaves room for the clip around each.
SEGMENT_START = 900.0
SEGMENT_END = 1801.0

_ITEM = re.compile(r"\{([^}]*)\}")
_NAME = re.compile(r'name:\s*"([^"]*)"')
_ID = re.compile(r"\b(?:label_)?id:\s*(\d+)")


def read_action_list(path: Path) -> dict[int, str]:
    """Action names by number from an AVA label map (``item {name id}`` of v2.1, ``label {name label_id}`` of v2.2).

    Raises:
        UserError: the file holds no such entry.
    """
    actions = {}
    for item in _ITEM.findall(read_text(path)):
        name, identifier = _NAME.search(item), _ID.search(item)
        if name and identifier:
            actions[int(identifier[1])] = name[1]
    if not actions:
        raise UserError(f"{path} holds no action (item or label with name and id); see {DOCUMENT}.")
    return actions


def _rows(path: Path, columns: int) -> list[tuple[int, list[str]]]:
    rows = [(line, [cell.strip() for cell in row]) for line, row in enumerate(csv.reader(csv_lines(path)), 1)]
    rows = [(line, row) for line, row in rows if any(row)]
    for line, row in rows:
        if len(row) < columns:
            raise UserError(f"{path}:{line}: {len(row)} columns, at least {columns} are needed; see {DOCUMENT}.")
    return rows


def read(dataset: Dataset) -> Listing:
    """Read ``ava_{train,val}_v2.x.csv``: video_id, timestamp, x1, y1, x2, y2 (in [0, 1]), action_id, person_id.

    A box whose action is not in the action list is dropped: the list of the 2018 challenge holds the 60 evaluated
    classes. ``annotations.excluded_train`` and ``excluded_validation`` may name lists of excluded timestamps: a box at
    such a timestamp is dropped. A film's file is named by its YouTube id; it is whole or cut to the 15 minutes.

    Raises:
        UserError: a file is not in the format; the message names file and line.
    """
    actions_path = annotation(dataset, "actions")
    actions = read_action_list(actions_path)
    paths = [actions_path]
    excluded: set[tuple[str, float]] = set()
    for key in ("excluded_train", "excluded_validation"):
        if dataset.annotations.get(key):
            path = annotation(dataset, key)
            paths.append(path)
            for line, row in _rows(path, 2):
                excluded.add((row[0], number(row[1], path, line, "timestamp")))
    boxes = []
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for subset in ("train", "validation"):
        path = annotation(dataset, subset)
        paths.append(path)
        for line, row in _rows(path, 7):
            video = row[0]
            time, x1, y1, x2, y2 = (number(text, path, line, "timestamp or box") for text in row[1:6])
            if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):
                raise UserError(f"{path}:{line}: the box {x1}, {y1}, {x2}, {y2} does not lie in [0, 1].")
            action = int(number(row[6], path, line, "action_id"))
            found = labels[video, subset]
            if (video, time) in excluded or action not in actions:
                continue
            person = int(number(row[7], path, line, "person_id")) if len(row) > 7 and row[7] else -1
            boxes.append(Box(video, subset, time, x1, y1, x2, y2, actions[action], person))
            found.add(actions[action])
    videos = [
        ListedVideo(video, tuple(sorted(names)), (subset,), (video,), SEGMENT_START, SEGMENT_END, trim=True)
        for (video, subset), names in sorted(labels.items())
    ]
    return Listing(videos, named_sources(paths), sorted(actions.values()), boxes, sorted(excluded))

"""Something-Something v1 (folders of frames, CSV) and v2 (webm, JSON)."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import DOCUMENT, annotation, named_sources
from pipeline_lib.manifests.schema import UNLABELLED, ListedVideo, Listing
from pipeline_lib.manifests.text_files import csv_lines, read_lines, read_text
from pipeline_lib.plain_data import parse_json

_LISTS = ("train", "validation")


def _unlabelled(ids: Iterable[str]) -> list[ListedVideo]:
    return [ListedVideo(id, (), (UNLABELLED,), (id,)) for id in ids]


def read_v1(dataset: Dataset) -> Listing:
    """Read ``something-something-v1-{train,validation}.csv``: an id, a semicolon, the label.

    ``annotations.labels`` may name ``something-something-v1-labels.csv``, one class a line; ``annotations.unlabelled``
    the test list, ``something-something-v1-test.csv``, one id a line. A video is a folder of images named by its id.

    Raises:
        UserError: a line is not ``id;label``.
    """
    videos = []
    paths = []
    for key in _LISTS:
        path = annotation(dataset, key)
        paths.append(path)
        for line, row in enumerate(csv.reader(csv_lines(path), delimiter=";"), 1):
            if not any(map(str.strip, row)):
                continue
            if len(row) != 2 or not row[0].strip():
                raise UserError(
                    f"{path}:{line}: {';'.join(row)!r:.200} is not 'id;label'. {DOCUMENT} shows the format."
                )
            videos.append(ListedVideo(row[0].strip(), (row[1].strip(),), (key,), (row[0].strip(),)))
    if dataset.annotations.get(UNLABELLED):
        path = annotation(dataset, UNLABELLED)
        paths.append(path)
        videos += _unlabelled(filter(None, map(str.strip, read_lines(path))))
    classes = None
    if dataset.annotations.get("labels"):
        path = annotation(dataset, "labels")
        paths.append(path)
        classes = read_lines(path)
    return Listing(videos, named_sources(paths), classes)


def _json(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). {DOCUMENT} shows the format.") from error


def read_v2(dataset: Dataset) -> Listing:
    """Read ``something-something-v2-{train,validation}.json``: a list of id, label, template, placeholders.

    The class is the template without its brackets, which is how ``something-something-v2-labels.json``
    (``annotations.labels``, optional) spells it; the label holds the objects' own names. ``annotations.unlabelled`` may
    name the test list, ``something-something-v2-test.json``, whose entries have an id alone.

    Raises:
        UserError: the JSON has another form.
    """
    videos = []
    paths = []
    lists = [*_LISTS, *([UNLABELLED] if dataset.annotations.get(UNLABELLED) else [])]
    for key in lists:
        path = annotation(dataset, key)
        paths.append(path)
        try:
            if key == UNLABELLED:
                videos += _unlabelled(str(entry["id"]) for entry in _json(path))
                continue
            for entry in _json(path):
                label = entry["template"].replace("[", "").replace("]", "").strip()
                videos.append(ListedVideo(str(entry["id"]), (label,), (key,), (str(entry["id"]),)))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not a list of id and template ({type(error).__name__}: {error}); see {DOCUMENT}."
            ) from error
    classes = None
    if dataset.annotations.get("labels"):
        path = annotation(dataset, "labels")
        paths.append(path)
        classes = list(_json(path))
    return Listing(videos, named_sources(paths), classes)

"""Frames that people already have, perhaps with flow: a folder of images per video, as MMAction2 has them."""

import re
from pathlib import Path

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import CLASS_LIST, DOCUMENT, annotation, class_list, named_sources
from pipeline_lib.manifests.schema import ListedVideo, Listing
from pipeline_lib.manifests.tables import LIST_NAMES, class_folders, draw_validation
from pipeline_lib.manifests.text_files import read_lines

# Folder, number of frames, and labels; a folder's name may hold blanks.
_LINE = re.compile(r"(?P<folder>\S.*?)\s+(?P<total>\d+)(?P<labels>(?:\s+\d+)+)\s*")


def read(dataset: Dataset) -> Listing:
    """Read MMAction2's lists, or, where none is given, the folders ``class/video`` below each video folder.

    A list has a line ``folder total_frames label`` per video, the label a number from 0 (several for several labels).
    ``annotations.labels`` may name a file with one class a line, in the order of the numbers; without it a class is
    called by its number. The keys ``train``, ``validation`` (or ``val``, ``test``) and ``unlabelled`` are the lists; a
    list alone is divided. Class folders may lie in folders ``train`` and ``validation``.

    Raises:
        UserError: a line has another form, or there is no video.
    """
    lists = {key: value for key, value in dataset.annotations.items() if value and key != CLASS_LIST}
    classes = class_list(dataset)
    paths = [] if classes is None else [annotation(dataset, CLASS_LIST)]
    if not lists and classes is not None:
        raise UserError(
            "annotations.labels names the classes of lists; folders of classes have their own names. Remove it."
        )
    if not lists:
        return Listing(_class_folders(dataset), named_sources(paths), classes)
    videos: list[ListedVideo] = []
    undivided: list[ListedVideo] = []
    for key in lists:
        path = annotation(dataset, key)
        paths.append(path)
        subset = LIST_NAMES.get(key.lower(), "") if len(lists) > 1 or key != "train" else ""
        for line, text in enumerate(read_lines(path), 1):
            match = _LINE.fullmatch(text)
            if match is None:
                raise UserError(
                    f"{path}: entry {line}, {text!r}, is not 'folder total_frames label'. {DOCUMENT} shows the format."
                )
            video = _listed(match, classes, (subset,) * dataset.num_splits)
            (videos if subset else undivided).append(video)
    videos += draw_validation(undivided, dataset.validation_share)
    return Listing(videos, named_sources(paths), classes)


def _listed(match: re.Match[str], classes: list[str] | None, subsets: tuple[str, ...]) -> ListedVideo:
    folder = match["folder"].rstrip("/").removeprefix("./")
    numbers = [int(number) for number in match["labels"].split()]
    if classes is None:
        labels, reason = tuple(map(str, numbers)), ""
    else:
        labels = tuple(classes[number] for number in numbers if number < len(classes))
        beyond = [number for number in numbers if number >= len(classes)]
        reason = f"unknown label: {beyond[0]}, the list of classes has {len(classes)}" if beyond else ""
    return ListedVideo(folder, labels, subsets, (folder,), reason=reason, num_frames=int(match["total"]))


def _class_folders(dataset: Dataset) -> list[ListedVideo]:
    """The folders ``class/video`` below each video folder.

    Raises:
        UserError: there is none.
    """
    videos: list[ListedVideo] = []
    undivided: list[ListedVideo] = []
    for root in map(Path, dataset.videos):
        for folder, subset in class_folders(root):
            for place in sorted(
                child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")
            ):
                name = str(place.relative_to(root))
                video = ListedVideo(name, (folder.name,), (subset,) * dataset.num_splits, (name,))
                (videos if subset else undivided).append(video)
    if not videos and not undivided:
        raise UserError(
            f"no class folder with a folder of images lies in {', '.join(dataset.videos)}; looked for "
            f"class/video/img_00001.jpg. {DOCUMENT} shows the layout."
        )
    return videos + draw_validation(undivided, dataset.validation_share)

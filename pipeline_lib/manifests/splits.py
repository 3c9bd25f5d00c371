"""UCF101 and HMDB51: the official files of their three splits."""

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import DOCUMENT, annotation, named_sources
from pipeline_lib.manifests.schema import ListedVideo, Listing
from pipeline_lib.manifests.text_files import read_text

_UCF101_GROUP = re.compile(r"_g(\d+)_c\d+$")
# HMDB51's flag: 1 is training, 2 is testing, 0 is unused in that split (the readme of its split files).
_HMDB51_FLAGS = {"0": "", "1": "train", "2": "validation"}


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); {DOCUMENT} lists the files of the format.") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def read_ucf101(dataset: Dataset) -> Listing:
    """Read ``classInd.txt`` and ``trainlist0{s}.txt``, ``testlist0{s}.txt`` of UCF101's action recognition task.

    The test lists become ``validation``. Videos may lie in class folders or flat, with any ending.

    Raises:
        UserError: a file is missing or a line is not ``Class/v_Class_g01_c01.avi [number]``.
    """
    folder = annotation(dataset, "splits")
    paths = [folder / "classInd.txt"]
    classes = []
    for number, line in _read_lines(paths[0]):
        parts = line.split()
        if len(parts) != 2:
            raise UserError(f"{paths[0]}:{number}: {line!r:.200} is not 'number ClassName'.")
        classes.append(parts[1])
    subsets: dict[str, list[str]] = {}
    for split in range(1, dataset.num_splits + 1):
        for file, subset in ((f"trainlist{split:02d}.txt", "train"), (f"testlist{split:02d}.txt", "validation")):
            path = folder / file
            paths.append(path)
            for number, line in _read_lines(path):
                name = line.split()[0]
                if "/" not in name:
                    raise UserError(f"{path}:{number}: {line!r:.200} is not 'Class/video.avi'.")
                row = subsets.setdefault(name, [""] * dataset.num_splits)
                if row[split - 1] not in ("", subset):
                    raise UserError(f"{path}:{number}: {name} is in the training and the test list of split {split}.")
                row[split - 1] = subset
    videos = []
    for name, lists in sorted(subsets.items()):
        label, _, file = name.partition("/")
        stem = file.rsplit(".", 1)[0]
        found = _UCF101_GROUP.search(stem)
        # One group is one person and background: its videos look alike.
        group = f"{label}_g{found[1]}" if found else ""
        videos.append(ListedVideo(stem, (label,), tuple(lists), (name, stem), group=group))
    return Listing(videos, named_sources(paths), classes)


def read_hmdb51(dataset: Dataset) -> Listing:
    """Read ``{class}_test_split{s}.txt``: a file name and the flag 0 (unused), 1 (training) or 2 (testing) a line.

    Some editions use a file name in several classes, so the class is part of a video's id.

    Raises:
        UserError: there is no such file, a split is missing for a class, or a flag is not 0, 1 or 2.
    """
    folder = annotation(dataset, "splits")
    paths = []
    classes = sorted({path.name.rsplit("_test_split", 1)[0] for path in folder.glob("*_test_split*.txt")})
    if not classes:
        raise UserError(f"{folder} holds no file {{class}}_test_split1.txt; {DOCUMENT} names the archive.")
    subsets: dict[tuple[str, str], list[str]] = {}
    for label in classes:
        for split in range(1, dataset.num_splits + 1):
            path = folder / f"{label}_test_split{split}.txt"
            paths.append(path)
            for number, line in _read_lines(path):
                parts = line.rsplit(maxsplit=1)
                if len(parts) != 2 or parts[1] not in _HMDB51_FLAGS:
                    raise UserError(f"{path}:{number}: {line!r:.200} is not 'video.avi' and a flag 0, 1 or 2.")
                subsets.setdefault((label, parts[0]), [""] * dataset.num_splits)[split - 1] = _HMDB51_FLAGS[parts[1]]
    videos = [
        ListedVideo(f"{label}/{file.rsplit('.', 1)[0]}", (label,), tuple(lists), (f"{label}/{file}", file))
        for (label, file), lists in sorted(subsets.items())
    ]
    return Listing(videos, named_sources(paths), classes)

"""Sports-1M: lists of URLs with one or several labels each."""

import re

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import DOCUMENT, annotation, named_sources
from pipeline_lib.manifests.schema import ListedVideo, Listing
from pipeline_lib.manifests.text_files import read_lines, read_text

_LINE = re.compile(r"^\S*[?&/](?:v=|v/)?([\w-]{11})\S*\s+(\d+(?:\s*,\s*\d+)*)$")


def read(dataset: Dataset) -> Listing:
    """Read ``train_partition.txt`` and ``test_partition.txt``: a URL, a space, label numbers with commas between.

    ``annotations.labels`` may name ``labels.txt``, one class a line, counted from 0; without it the numbers are the
    classes. Files are named by the YouTube id.

    Raises:
        UserError: a line has another form, or a number lies beyond the list of classes.
    """
    paths = []
    classes: list[str] | None = None
    if dataset.annotations.get("labels"):
        path = annotation(dataset, "labels")
        paths.append(path)
        classes = read_lines(path)
    videos = []
    for key in ("train", "validation"):
        path = annotation(dataset, key)
        paths.append(path)
        for line, text in enumerate(read_text(path).splitlines(), 1):
            if not text.strip():
                continue
            found = _LINE.match(text.strip())
            if found is None:
                raise UserError(f"{path}:{line}: {text!r:.200} is not a YouTube URL and label numbers; see {DOCUMENT}.")
            numbers = [int(word) for word in found[2].split(",")]
            if classes is not None and max(numbers) >= len(classes):
                raise UserError(f"{path}:{line}: label {max(numbers)}, but {len(classes)} classes are listed.")
            labels = tuple(str(number) if classes is None else classes[number] for number in numbers)
            videos.append(ListedVideo(found[1], labels, (key,), (found[1],)))
    return Listing(videos, named_sources(paths), classes)

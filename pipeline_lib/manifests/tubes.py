"""JHMDB and UCF101-24: ground-truth tubes in the pickle files that action detectors exchange.

``JHMDB-GT.pkl`` and ``UCF101v2-GT.pkl`` (Kalogeiton et al., Action Tubelet Detector, ICCV 2017) hold ``labels``,
``gttubes`` (video → class index → arrays of frame, x1, y1, x2, y2 in pixels, frames counted from 1), ``nframes``,
``train_videos`` and ``test_videos`` (a list per split) and ``resolution`` (height, width).
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import DOCUMENT, annotation, named_sources
from pipeline_lib.manifests.schema import Box, ListedVideo, Listing

# What a pickle of dictionaries, lists, strings and arrays needs; anything else could run code of the file's choosing.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _DataUnpickler(pickle.Unpickler):
    """Loads data only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not data")
        return super().find_class(module, name)


def load_tubes(path: Path) -> dict[str, Any]:
    """Load such a file without running any code in it.

    Raises:
        UserError: it is not such a pickle, or refers to anything but arrays and plain data.
    """
    try:
        with open(path, "rb") as file:
            # Python 2 wrote these files: with latin1 byte strings become text and arrays load.
            content = _DataUnpickler(file, encoding="latin1").load()
        missing = {"labels", "gttubes", "train_videos", "test_videos", "resolution"} - set(content)
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, ImportError, IndexError) as error:
        raise UserError(f"{path} cannot be read as ground-truth tubes ({error}); see {DOCUMENT}.") from error
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; see {DOCUMENT}.")
    return dict(content)


def read(dataset: Dataset) -> Listing:
    """Read the tubes as a manifest (one row per video, test lists as ``validation``) and boxes.

    A box's ``time`` is its frame, counted from 0; ``person`` numbers the tubes of a video. Videos are looked for as
    ``Class/name`` or ``name``.

    Raises:
        UserError: the file is not in the format, or has fewer splits than ``num_splits``.
    """
    path = annotation(dataset, "boxes")
    content = load_tubes(path)
    try:
        return _listing(dataset, path, content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path} does not hold tubes in the format ({type(error).__name__}: {error}); see {DOCUMENT}."
        ) from error


def _listing(dataset: Dataset, path: Path, content: dict[str, Any]) -> Listing:
    labels: list[str] = [str(label) for label in content["labels"]]
    lists = {"train": content["train_videos"], "validation": content["test_videos"]}
    if any(len(splits) < dataset.num_splits for splits in lists.values()):
        raise UserError(f"{path} has {len(lists['train'])} split(s), num_splits asks for {dataset.num_splits}.")
    subsets: dict[str, list[str]] = {str(video): [""] * dataset.num_splits for video in content["gttubes"]}
    for subset, splits in lists.items():
        for split in range(dataset.num_splits):
            for video in splits[split]:
                if video in subsets:
                    subsets[video][split] = subset
    videos = []
    boxes = []
    for video, members in sorted(subsets.items()):
        height, width = content["resolution"][video]
        scale = np.array([width, height, width, height], dtype=np.float64)
        tubes = content["gttubes"][video]
        names = tuple(sorted(labels[index] for index in tubes))
        videos.append(ListedVideo(video, names, tuple(members), (video, video.rsplit("/", 1)[-1])))
        person = 0
        for index in sorted(tubes):
            for tube in tubes[index]:
                rows = np.asarray(tube, dtype=np.float64)
                for row in rows:
                    x1, y1, x2, y2 = np.clip(row[1:5] / scale, 0.0, 1.0).tolist()
                    boxes.append(Box(video, "", float(row[0]) - 1.0, x1, y1, x2, y2, labels[index], person))
                person += 1
    return Listing(videos, named_sources([path]), labels, boxes)

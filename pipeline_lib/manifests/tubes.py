"""JHMDB and UCF101-24: ground-truth tubes in the pickle files that action detectors exchange.

``JHMDB-GT.pkl`` and ``UCF101v2-GT.pkl`` (Kalogeiton et al., Action Tubelet Detector, ICCV 2017) hold ``labels``,
``gttubes`` (video → class index → arrays of frame, x1, y1, x2, y2 in pixels, frames counted from 1), ``nframes``,
``train_videos`` and ``test_videos`` (a list per split) and ``resolution`` (height, width).
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import DOCUMENT, annotation, named_sources
from pipeline_lib.manifests.pool import limit_resources, run_alone
from pipeline_lib.manifests.schema import Box, ListedVideo, Listing
from pipeline_lib.unpickling import ArraysUnpickler

_KEYS = ("labels", "gttubes", "train_videos", "test_videos", "resolution")
# UCF101-24's file has 6 MB and takes 300 MB when it is read. A hostile one of 60 bytes may ask for terabytes.
_MEMORY_BYTES = 4 << 30
_SECONDS = 600.0


def load_tubes(path: Path) -> dict[str, Any]:
    """Load such a file in a process of its own, with bounded memory and time, without running any code in it.

    Returns:
        ``labels`` (names), ``gttubes`` (video → class index → lists of rows of frame, x1, y1, x2, y2),
        ``train_videos``, ``test_videos`` (names per split), ``resolution`` (video → height, width).

    Raises:
        UserError: it is not such a pickle, refers to anything but arrays and plain data, or asks for too much memory.
    """
    script = "import sys; from pipeline_lib.manifests import tubes; tubes.print_tubes(sys.argv[1])"
    try:
        done = run_alone(script, [os.fspath(path)], _SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"{path} cannot be read as ground-truth tubes: not done in {_SECONDS:g} s.") from None
    try:
        content: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        content = {"problem": f"reading it crashed ({how})"}
    if "problem" in content:
        raise UserError(f"{path} cannot be read as ground-truth tubes ({content['problem']}); see {DOCUMENT}.")
    if content["missing"]:
        raise UserError(f"{path} lacks {', '.join(content['missing'])}; see {DOCUMENT}.")
    content["gttubes"] = {video: dict(classes) for video, classes in content["gttubes"].items()}
    return content


def print_tubes(path: str) -> None:
    """Print the content of such a file as JSON, or ``problem``: what ``load_tubes`` runs."""
    limit_resources(_MEMORY_BYTES)
    try:
        with open(path, "rb") as file:
            # Python 2 wrote these files: with latin1 byte strings become text and arrays load.
            text = json.dumps(_plain(ArraysUnpickler(file, encoding="latin1").load()))
    except MemoryError:
        text = json.dumps({"problem": f"it asks for more than {_MEMORY_BYTES >> 30} GiB of memory"})
    # A damaged pickle can raise any error, and its message may have any length.
    except Exception as error:
        text = json.dumps({"problem": f"{type(error).__name__}: {error}"[:200]})
    print(text)


def _plain(content: Any) -> dict[str, Any]:
    """The parts of the file that are used, as lists, numbers and names; anything else in their place is a TypeError."""
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}, not a dictionary")
    missing = [key for key in _KEYS if key not in content]
    if missing:
        return {"missing": missing}
    tubes = {
        _name(video): [
            (int(index), [np.asarray(tube, dtype=np.float64)[:, :5].tolist() for tube in members])
            for index, members in classes.items()
        ]
        for video, classes in content["gttubes"].items()
    }
    sizes = {_name(video): [float(side) for side in size] for video, size in content["resolution"].items()}
    lists = {key: [[_name(name) for name in split] for split in content[key]] for key in _KEYS[2:4]}
    labels = [_name(label) for label in content["labels"]]
    return {"missing": missing, "labels": labels, "gttubes": tubes, "resolution": sizes, **lists}


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} stands in the place of a name")
    return value


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

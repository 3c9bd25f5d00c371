"""No process holds the logits of a data set: written, read, judged and combined, they pass through."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats  # noqa: F401 (an import inside would count)

from pipeline_lib.tasks.classification import metrics
from pipeline_lib.tasks.classification import scores as score_files
from pipeline_lib.tasks.classification.combination import combine
from pipeline_lib.tasks.classification.comparison import student_teacher_distance
from pipeline_lib.tasks.classification.metrics import Evaluation
from pipeline_lib.tasks.classification.scores import LabelledVideo, ScoreFile, ScoresPart

NUM_VIDEOS, NUM_CLIPS, NUM_CLASSES = 600, 40, 400
FILE_BYTES = 4 * NUM_VIDEOS * NUM_CLIPS * NUM_CLASSES
CLASSES = [f"class {number}" for number in range(NUM_CLASSES)]
VIDEOS = [LabelledVideo(f"v{row:05d}", "validation", (CLASSES[row % NUM_CLASSES],)) for row in range(NUM_VIDEOS)]


def peak_of(work: Callable[[], object]) -> int:
    """Bytes allocated by ``work`` at its worst moment, above what was there before."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


def make(path: Path, seed: int, num_videos: int = NUM_VIDEOS) -> None:
    random = np.random.default_rng(seed)
    starts, crops = np.arange(NUM_CLIPS) * 8, np.zeros(NUM_CLIPS, np.int8)
    with ScoresPart(path, "origin", NUM_CLASSES) as part:
        for video in VIDEOS[:num_videos]:
            if video.id not in part.done:
                part.append(video.id, starts, crops, random.standard_normal((NUM_CLIPS, NUM_CLASSES)).astype("f4"))
        if num_videos == NUM_VIDEOS:
            part.finish(VIDEOS, CLASSES, {"inputs": {}})


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pieces as small beside this file as 16,384 clips are beside Sports-1M's.
    for module in (metrics, score_files):
        monkeypatch.setattr(module, "CLIPS_AT_A_TIME", 128)


@pytest.mark.usefixtures("few")
def test_memory_does_not_grow_with_the_clips(tmp_path: Path) -> None:
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    assert FILE_BYTES > 38e6
    assert peak_of(lambda: make(first, 1)) < FILE_BYTES / 8
    # Killed before its last video, and resumed.
    make(second, 2, NUM_VIDEOS - 1)
    assert peak_of(lambda: make(second, 3)) < FILE_BYTES / 8
    members = {"a": ScoreFile(first), "b": ScoreFile(second)}
    assert peak_of(lambda: Evaluation(ScoreFile(first)).summary()) < FILE_BYTES / 4
    assert peak_of(lambda: combine({"a": first, "b": second}, tmp_path / "both.h5", {})) < FILE_BYTES / 4
    assert peak_of(lambda: student_teacher_distance(*members.values())) < FILE_BYTES / 4

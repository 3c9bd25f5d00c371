"""Score files as plain arrays, for tests."""

from types import SimpleNamespace

import numpy as np

from pipeline_lib.tasks.classification.metrics import mean_probabilities
from pipeline_lib.tasks.classification.scores import Clips, MemoryScores, Scores


def whole(scores: Scores) -> SimpleNamespace:
    """All clips of some scores at once, with the ids of the videos and their mean probabilities."""
    clips = scores.read(0, int(scores.counts.sum()))
    ids = [video.id for video in scores.videos]
    means = np.concatenate([probabilities for _, probabilities in mean_probabilities(scores)])
    return SimpleNamespace(**clips._asdict(), ids=ids, video_probabilities=means)


def replaced(scores: Scores, **changes: object) -> MemoryScores:
    """The same scores with other logits, videos, classes or record."""
    clips = scores.read(0, int(scores.counts.sum()))
    own = {name: changes.pop(name) for name in list(changes) if name in Clips._fields}
    values = {"videos": scores.videos, "classes": scores.classes, "record": scores.record} | changes
    return MemoryScores(clips=clips._replace(**own), **values)  # type: ignore[arg-type]

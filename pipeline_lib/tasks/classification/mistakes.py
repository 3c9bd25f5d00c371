"""The videos that a network takes for another class with the most confidence."""

from collections.abc import Iterable
from heapq import nsmallest

from pipeline_lib.tasks.classification.metrics import mean_probabilities
from pipeline_lib.tasks.classification.scores import Scores, SomeVideos, label_indices
from pipeline_lib.tasks.results import Mistake, Mistakes


def confident_mistakes(scores: Scores, count: int) -> Mistakes:
    """The most confident mistakes, the most confident first; of equals the first by id.

    A mistake is a video whose most probable class, after the softmax is averaged over its clips, is none of its labels.

    Args:
        scores: of labelled videos. They are read some thousand clips at a time.
        count: how many mistakes are kept.
    """
    labels = label_indices(scores)
    kept: list[Mistake] = []
    num_wrong = 0
    for rows, probabilities in mean_probabilities(scores):
        predictions = probabilities.argmax(axis=1)
        wrong = [row for row, own in enumerate(labels[rows]) if int(predictions[row]) not in own]
        num_wrong += len(wrong)
        found = [
            Mistake(
                id=scores.videos[rows.start + row].id,
                truth=", ".join(scores.videos[rows.start + row].labels),
                prediction=scores.classes[predictions[row]],
                confidence=float(probabilities[row].max()),
                of_truth=float(probabilities[row, labels[rows.start + row]].max()),
            )
            for row in wrong
        ]
        kept = nsmallest(count, [*kept, *found], key=lambda one: (-one.confidence, one.id))
    return Mistakes(kept, num_wrong, len(scores.videos))


def recognised(scores: Scores, ids: Iterable[str]) -> set[str]:
    """Which of these videos a network recognises; videos that it did not judge are left out."""
    known = {video.id for video in scores.videos}
    found = set()
    for id in ids:
        if id in known:
            # One at a time, because videos that lie far apart in the file would be read with all between them.
            own = SomeVideos(scores, [id])
            ((_, probabilities),) = mean_probabilities(own)
            if int(probabilities[0].argmax()) in label_indices(own)[0]:
                found.add(id)
    return found

"""Which videos are of one source (a film, a person, a round of recording), recognised from their names.

Clips of one source look alike. With some of them in training and others in validation a network is judged on what it
has seen, so a source goes to one list as a whole.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from pipeline_lib.manifests.schema import ListedVideo
from pipeline_lib.manifests.tables import group_of


class Rule(NamedTuple):
    """A way to name sources.

    Attributes:
        pattern: ``group_pattern`` of a data set.
        about: what it takes for a source, as the end of a sentence.
        is_shared: whether a source holds videos of several classes; only then the names say that it is one.
    """

    pattern: str
    about: str
    is_shared: bool = False


RULES = (
    Rule(r"(v_\w+_g[0-9]+)_c[0-9]+$", "a group of UCF101's names (v_Class_gNN_cNN): clips of one film"),
    Rule(
        r"(?:^|/)([^/]+?)_[a-z_]+_[fuhl]_(?:cm|nm)_np[0-9]_(?:fr|ba|le|ri)_(?:goo|med|bad)_[0-9]+$",
        "the film that HMDB51's names begin with",
    ),
    Rule(r"S[0-9]{3}C[0-9]{3}(P[0-9]{3})R[0-9]{3}A[0-9]{3}", "a person of NTU RGB+D's names (P001 …)"),
    Rule(
        r"(?i)(?:^|[/_-])((?:person|subject|subj|actor|user|participant)[_-]?[0-9]+)", "a person that the names number"
    ),
    Rule(r"(?:^|/)([\w-]{11})_[0-9]{6}_[0-9]{6}$", "a YouTube video, of which the files are parts (id_start_end)"),
    Rule(
        r"(?:^|/)([^/]*[^/0-9_. -])[_. -]+(?:part|clip|cut|segment|scene|shot|take|p|c|s)?[_. -]?[0-9]+$",
        "what stands before the number at the end of a name: parts of one film",
    ),
    Rule(
        r"([0-9]+)$",
        "the number at the end of a name, which the classes share: a round of recording, or a person",
        is_shared=True,
    ),
)
_LEAST_MATCHED = 0.9


def sources_of(videos: Sequence[ListedVideo], pattern: str) -> dict[str, set[tuple[str, ...]]]:
    """The classes of each source that a pattern finds; a video that it does not match is a source of its own."""
    found: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for video in videos:
        found[group_of(video.id, pattern) or video.id].add(video.labels)
    return found


def _fits(videos: Sequence[ListedVideo], rule: Rule) -> bool:
    matched = sum(bool(group_of(video.id, rule.pattern)) for video in videos)
    sources = sources_of(videos, rule.pattern)
    if matched < _LEAST_MATCHED * len(videos) or len(sources) == len(videos):
        return False
    classes = {video.labels for video in videos}
    # Both lists need a source of each class.
    if any(sum(labels in held for held in sources.values()) < 2 for labels in classes):
        return False
    shared = sum(len(held) > 1 for held in sources.values())
    return not rule.is_shared or shared >= len(sources) / 2


def recognised(videos: Sequence[ListedVideo]) -> Rule | None:
    """The first rule by which the videos' names tell their sources; None if none does.

    A rule fits if it matches nine of ten names, if some source has several videos, and if each class has two sources or
    more. Numbers alone are taken for sources only if half of them occur in several classes.
    """
    return next((rule for rule in RULES if _fits(videos, rule)), None)

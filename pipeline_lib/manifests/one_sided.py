"""Classes that only one of the two lists has: mostly one class that the lists spell in two ways."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pipeline_lib.manifests.text_files import composed

_LISTS = ("train", "validation")
# Comparing every name with every other takes seconds beyond this.
_MAXIMUM_COMPARED = 1000


def _letters(name: str) -> str:
    """A name without case, blanks, underscores and signs."""
    return "".join(character for character in composed(name).casefold() if character.isalnum())


def one_sided_classes(rows: Iterable[tuple[str, Sequence[str]]]) -> dict[str, dict[str, str]]:
    """The classes without a usable clip in the training or in the validation list.

    Args:
        rows: list and labels of each usable video, of one split.

    Returns:
        ``train`` and ``validation``, where classes are absent from that list → class → the class of that list, absent
        from the other one, whose name is nearest; empty if none resembles it. Empty if a list has no video at all.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for subset, labels in rows:
        classes[subset].update(labels)
    if not all(classes[subset] for subset in _LISTS):
        return {}
    result = {}
    for subset, other in (_LISTS, _LISTS[::-1]):
        absent = sorted(classes[other] - classes[subset])
        if absent:
            result[subset] = _nearest(absent, sorted(classes[subset] - classes[other]))
    return result


def _nearest(names: Sequence[str], candidates: Sequence[str]) -> dict[str, str]:
    by_letters = {_letters(name): name for name in candidates}
    compared = list(by_letters) if max(len(names), len(candidates)) <= _MAXIMUM_COMPARED else []
    result = {}
    for name in names:
        letters = _letters(name)
        close = [letters] if letters in by_letters else difflib.get_close_matches(letters, compared, 1, 0.8)
        result[name] = by_letters[close[0]] if close else ""
    return result


def one_sided_lines(classes: Mapping[str, Mapping[str, Mapping[str, str]]], limit: int) -> list[str]:
    """What a manifest's summary says of such classes, as text.

    Args:
        classes: ``subset_1`` … → what :func:`one_sided_classes` gives.
        limit: classes that are named of each list.
    """
    lines = []
    for split, lists in classes.items():
        for subset, names in lists.items():
            # Those with a like spelling first: they are most likely one class.
            ordered = sorted(names, key=lambda name: (not names[name], name))
            shown = [name + (f" (there is {names[name]})" if names[name] else "") for name in ordered[:limit]]
            more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
            plural = "class has" if len(ordered) == 1 else "classes have"
            lines.append(f"{split}: {len(ordered)} {plural} no {subset} clip: {', '.join(shown)}{more}")
    return lines

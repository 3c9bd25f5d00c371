"""Reads the summary of a manifest, ``summary.json``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json


@dataclass(frozen=True)
class ManifestSummary:
    """How many videos a manifest lists, and with which status and reason."""

    digest: str
    """Digest of the manifest's content, 64 hexadecimal digits."""
    classes: list[str]
    """Sorted."""
    dataset: str = ""
    format: str = ""
    """Format of the annotations."""
    status: Mapping[str, int] = field(default_factory=dict)
    """``accepted``, ``rejected`` or ``missing`` → number of videos."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Reason for which videos are not used → number of videos."""
    subsets: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """``subset_1`` … → list → status → number of videos."""
    one_sided_classes: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    """``subset_1`` … → the list without a usable clip of some classes → class → the list's nearest spelling."""
    skipped_files: Mapping[str, int] = field(default_factory=dict)
    """What is unusual about files that are listed as no video → number of files."""


def read_summary(path: Path) -> ManifestSummary:
    """Read ``manifests/{dataset}/summary.json``.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        known = {entry.name for entry in fields(ManifestSummary)}
        return ManifestSummary(**{key: value for key, value in content.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): the manifest of {path.parent.name} has to be built first; "
            f"`snakemake --cores all {path}` does."
        ) from error

"""Reads the summary of a manifest, ``summary.json``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from pipeline_lib.artefacts.sealing import damage_named, read_sealed_json


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
        UserError: the file is missing.
        DamageError: it is not as it was written.
    """
    maker = f"the manifest of {path.parent.name} has to be built first, `snakemake --cores all {path}` does"
    content = read_sealed_json(path, maker)
    with damage_named(path, maker):
        known = {entry.name for entry in fields(ManifestSummary)}
        return ManifestSummary(**{key: value for key, value in content.items() if key in known})

"""``metrics.json``: the figures of some predictions, with the counts and the manifest's digest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.sealing import damage_named, read_sealed_json, write_sealed_json

NUM_NEIGHBOURS = 20
"""Neighbours that vote in the k-NN classification."""


def write_metrics(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``metrics.json`` atomically."""
    write_sealed_json(path, record)


def read_metrics(path: Path, figure: str | None = None) -> dict[str, Any]:
    """Read ``metrics.json`` or ``retrieval.json``; ``figure`` is a figure that it must hold.

    Raises:
        UserError: the file is missing.
        DamageError: it is not as it was written.
    """
    maker = "run the target evaluate first"
    record = read_sealed_json(path, maker)
    with damage_named(path, maker):
        if figure is not None:
            record["metrics"][figure]
        dict(record["metrics"])
    return record

"""``metrics.json``: the figures of some predictions, with the counts and the manifest's digest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.atomic import write_json
from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json

NUM_NEIGHBOURS = 20
"""Neighbours that vote in the k-NN classification."""


def write_metrics(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``metrics.json`` atomically."""
    write_json(path, record)


def read_metrics(path: Path, figure: str | None = None) -> dict[str, Any]:
    """Read ``metrics.json`` or ``retrieval.json``; ``figure`` is a figure that it must hold.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        record: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        if figure is not None:
            record["metrics"][figure]
        dict(record["metrics"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as metrics ({error}); run the target evaluate first.") from error
    return record

"""Reads the tables of motion strength, ``{shard}.strength.parquet``, checked by the digest of their content."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline_lib.artefacts.records import ContentDigest
from pipeline_lib.artefacts.sealing import DamageError, damage_named, unsealed


def strengths_digest(ids: Iterable[str], strengths: Iterable[np.ndarray]) -> str:
    """Digest of a table's content: ids, and the strength of each frame, float32."""
    content = ContentDigest()
    for id, values in zip(ids, strengths, strict=True):
        content.add(id, values.tobytes())
    return content.hexdigest()


def read_strength_table(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The strength of each frame of each video, float32 (num_frames,) in [0, 1] by id, and the content's digest.

    Raises:
        UserError: the table is missing.
        DamageError: it is damaged.
    """
    with damage_named(path, "the rule motion_strength makes it from its motion shard"):
        table = pq.read_table(path)
        record = json.loads((table.schema.metadata or {})[b"provenance"])
        ids = table["id"].to_pylist()
        rows = [row.values.to_numpy().astype(np.float32, copy=False) for row in table["strength"]]
    content = unsealed(record, path, "its record").get("content")
    if content is None or strengths_digest(ids, rows) != content:
        raise DamageError(path, "its values do not agree with the digest of its content")
    return dict(zip(ids, rows, strict=True)), str(content)

"""``metrics.json``: the figures of one score file, with the counts and the digest of the manifest behind them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.atomic import write_json
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metrics import Evaluation
from pipeline_lib.evaluation.scores import Scores

NUM_NEIGHBOURS = 20
"""Of the k-NN classification with a network's features."""


def metrics_record(scores: Scores, run: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """The content of ``metrics.json`` as plain data.

    Args:
        scores: the score file.
        run: experiment, split, seed and protocol.
        counts: how many videos the manifest's subset lists, and what became of those that were not evaluated.

    Raises:
        UserError: the score file holds no video.
    """
    evaluation = Evaluation(scores)
    return {
        **run,
        "manifest": scores.manifest_digest,
        "num_videos": len(scores.videos),
        "num_clips": len(scores.video),
        "num_classes": len(scores.classes),
        "counts": dict(counts),
        "metrics": evaluation.summary(),
        "per_class": evaluation.class_table(),
        "provenance": dict(scores.provenance),
    }


def write_metrics(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``metrics.json`` atomically."""
    write_json(path, record)


def read_metrics(path: Path, figure: str = "video_top1") -> dict[str, Any]:
    """Read ``metrics.json`` or, with another figure that it must hold, ``retrieval.json``.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        record["metrics"][figure]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as metrics ({error}); run the target evaluate first.") from error
    return record

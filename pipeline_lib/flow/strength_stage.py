"""The strength of every frame's motion: a small table beside each motion shard, so that training decodes nothing.

MoDist (section 3.1) takes motion clips only from frames whose mean over the pixels of the motion input, Σ P_i / K,
exceeds a threshold γ (0.02 in section 4.1). A frame's strength in the table is the mean of |value| over its pixels and
channels as a share of the kind's bound, in [0, 1]: the values that a network sees. The training multiplies it by the
bound (``pipeline_lib.clips.views``). The table does not depend on γ, so that another threshold computes nothing again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.artefacts.atomic import atomic_path
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import content_digest, distribution_versions
from pipeline_lib.artefacts.sealing import DamageError, sealed
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.flow.code import STRENGTH
from pipeline_lib.flow.quantisation import Quantisation, decode_image
from pipeline_lib.media.shards import Shard
from pipeline_lib.media.strengths import strengths_digest


def frame_strength(quantised: np.ndarray, quantisation: Quantisation) -> float:
    """Mean of |value| / bound over one decoded motion frame (C, H, W) uint8, in [0, 1]."""
    return float(np.abs(quantisation.normalise(quantised)).mean(dtype=np.float64))


def measure_strength(motion: Path, output: Path) -> dict[str, Any]:
    """Write the table of a motion shard: ``id`` and ``strength`` (list of float32, one per frame), in its order.

    Args:
        motion: the motion shard.
        output: the table, Parquet; its schema's metadata hold the provenance.

    Returns:
        Counts for the log; none if the table was finished before.

    Raises:
        UserError: the shard is missing.
        DamageError: it is damaged.
    """
    with Stage("motion_strength", STRENGTH, output) as stage:
        shard = Shard(motion)
        quantisation = Quantisation.from_record(shard.record)
        if stage.is_finished(
            {
                "measure": "mean of |value| / bound over pixels and channels",
                "quantisation": quantisation.attributes(),
            },
            {motion: content_digest(motion)},
            distribution_versions(["numpy", "simplejpeg"]),
        ):
            return {}
        ids, strengths = [], []
        with Progress(f"motion strength {motion.parent.name}", len(shard.videos), "videos") as progress:
            for position, video in enumerate(shard.videos):
                try:
                    frames = [decode_image(jpeg, video.height) for jpeg in shard.read(position, 0, video.num_frames)]
                except ValueError as error:
                    raise DamageError(motion, f"video {video.id}: a frame cannot be decoded ({error})") from error
                ids.append(video.id)
                strengths.append(np.array([frame_strength(frame, quantisation) for frame in frames], np.float32))
                progress.advance()
        record = sealed(stage.record | {"content": strengths_digest(ids, strengths)})
        table = pa.table(
            {"id": pa.array(ids, pa.string()), "strength": pa.array(strengths, pa.list_(pa.float32()))}
        ).replace_schema_metadata({"provenance": json.dumps(record)})
        with atomic_path(output) as temporary:
            pq.write_table(table, temporary)
        figures = {"videos": len(ids), "frames": sum(map(len, strengths))}
        stage.finish(figures)
        return figures

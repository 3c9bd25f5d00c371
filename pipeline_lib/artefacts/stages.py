"""The modules that each stage runs: the closure of these is the stage's fingerprint.

Names only, nothing is imported: the Snakefile asks on every start, and the stages write the same list's fingerprint
into their artefacts. A training's list is in ``pipeline_lib.training.code``.
"""

from collections.abc import Mapping
from typing import Any

SHAPES_NO_ARTEFACT = True

GENERATE = ["pipeline_lib.generation.stage"]
MANIFEST = ["pipeline_lib.manifests.build"]
FRAMES = ["pipeline_lib.media.frames_stage"]
MOTION = ["pipeline_lib.flow.motion_stage"]
STRENGTH = ["pipeline_lib.flow.strength_stage"]
EVALUATION = ["pipeline_lib.evaluation.runner"]
RETRIEVAL = ["pipeline_lib.evaluation.retrieval"]
ENSEMBLE = ["pipeline_lib.evaluation.ensemble"]
REPORT = ["pipeline_lib.reporting.report"]


# Entry modules of the motion methods.
METHODS = {
    "tvl1": "pipeline_lib.flow.tvl1.method",
    "farneback": "pipeline_lib.flow.farneback",
    "raft": "pipeline_lib.flow.raft.method",
    "flow_edges": "pipeline_lib.flow.flow_edges",
    "frame_difference": "pipeline_lib.flow.frame_difference",
}

# What flow edges can be made from.
FLOW_SOURCES = ("tvl1", "farneback", "raft")


def motion_modules(method: str, parameters: Mapping[str, Any]) -> list[str]:
    """Of a motion kind: the stage, its method, and what flow edges are made from."""
    modules = [*MOTION, METHODS[method]]
    if method == "flow_edges":
        source = str(parameters.get("source", "raft"))
        if source in FLOW_SOURCES:
            modules.append(METHODS[source])
    return modules


def retrieval_modules(network: str) -> list[str]:
    """Of a retrieval: the stage and the module of the network."""
    return [*RETRIEVAL, network]


def evaluation_modules(network: str) -> list[str]:
    """Of an evaluation: the stage and the module of the network."""
    return [*EVALUATION, network]

"""The modules that each stage runs: the closure of these is the stage's fingerprint.

Names only, nothing is imported: the Snakefile asks on every start, and the stages write the same list's fingerprint
into their artefacts. A training's list is in ``pipeline_lib.training.code``.
"""

from collections.abc import Mapping
from typing import Any

GENERATE = ["pipeline_lib.media.generation"]
MANIFEST = ["pipeline_lib.manifests.build"]
FRAMES = ["pipeline_lib.media.extraction"]
MOTION = ["pipeline_lib.flow.extraction"]
STRENGTH = ["pipeline_lib.flow.strength"]
EVALUATION = ["pipeline_lib.evaluation.runner"]
RETRIEVAL = ["pipeline_lib.evaluation.retrieval"]
ENSEMBLE = ["pipeline_lib.evaluation.ensemble"]
REPORT = ["pipeline_lib.reporting.report"]


# What flow edges can be made from.
FLOW_SOURCES = ("tvl1", "farneback", "raft")


def motion_modules(method: str, parameters: Mapping[str, Any]) -> list[str]:
    """Of a motion kind: the stage, its method, and what flow edges are made from."""
    modules = [*MOTION, f"pipeline_lib.flow.{method}"]
    if method == "flow_edges":
        source = str(parameters.get("source", "raft"))
        if source in FLOW_SOURCES:
            modules.append(f"pipeline_lib.flow.{source}")
    return modules


def retrieval_modules(network: str) -> list[str]:
    """Of a retrieval: the stage and the module of the network."""
    return [*RETRIEVAL, network]


def evaluation_modules(network: str) -> list[str]:
    """Of an evaluation: the stage and the module of the network."""
    return [*EVALUATION, network]

"""The modules that each stage runs: the closure of these is the stage's fingerprint.

Names only, nothing is imported: the Snakefile asks on every start, and the stages write the same list's fingerprint
into their artefacts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

GENERATE = ["pipeline_lib.media.generation"]
MANIFEST = ["pipeline_lib.manifests.build"]
FRAMES = ["pipeline_lib.media.extraction"]
MOTION = ["pipeline_lib.flow.extraction"]
TRAINING = ["pipeline_lib.training.trainer"]
EVALUATION = ["pipeline_lib.evaluation.runner"]
ENSEMBLE = ["pipeline_lib.evaluation.ensemble"]
REPORT = ["pipeline_lib.reporting.report"]


def motion_modules(method: str, parameters: Mapping[str, Any]) -> list[str]:
    """Of a motion kind: the stage, its method, and what flow edges are made from."""
    modules = [*MOTION, f"pipeline_lib.flow.{method}"]
    if method == "flow_edges":
        source = str(parameters.get("source", "raft"))
        modules.append(f"pipeline_lib.flow.{source}")
    return modules


def training_modules(objective: str, networks: Sequence[str]) -> list[str]:
    """Of a training: the trainer, its objective, and the modules of its network and its teacher's."""
    return [*TRAINING, f"pipeline_lib.training.objectives.{objective}", *dict.fromkeys(networks)]


def evaluation_modules(network: str) -> list[str]:
    """Of an evaluation: the stage and the module of the network."""
    return [*EVALUATION, network]

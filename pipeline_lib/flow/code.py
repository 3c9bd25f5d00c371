"""Which modules compute a motion kind. This module imports no torch, so that a workflow can ask while it is parsed."""

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.motions import METHODS

# Only names: the fingerprint of a stage covers the method that it uses.
SHAPES_NO_ARTEFACT = True

STAGE = "pipeline_lib.flow.motion_stage"

STRENGTH = ("pipeline_lib.flow.strength_stage",)
"""The modules that measure the strength of each frame's motion."""


def motion_modules(kind: Motion) -> list[str]:
    """The modules of a motion kind: the stage, its method, and the method of the flow that it is computed from.

    Flow that is read from files has a stage of its own.
    """
    method = METHODS[kind.method]
    if method.reads_files:
        return [method.module]
    return [STAGE, *(method.module for method in kind.methods)]

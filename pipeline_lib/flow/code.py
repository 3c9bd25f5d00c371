"""Which modules compute a motion kind. This module imports no torch, so that a workflow can ask while it is parsed."""

from pipeline_lib.configuration.data import Motion

# Only names: the fingerprint of a stage covers the method that it uses.
SHAPES_NO_ARTEFACT = True

STAGE = "pipeline_lib.flow.motion_stage"

STRENGTH = ("pipeline_lib.flow.strength_stage",)
"""The modules that measure the strength of each frame's motion."""

METHODS = {
    "tvl1": "pipeline_lib.flow.tvl1.method",
    "farneback": "pipeline_lib.flow.farneback",
    "raft": "pipeline_lib.flow.raft.method",
    "flow_edges": "pipeline_lib.flow.flow_edges",
    "frame_difference": "pipeline_lib.flow.frame_difference",
}
"""Each motion method's module, which has ``create(kind, device, num_threads) -> MotionMethod``."""


def motion_modules(kind: Motion) -> list[str]:
    """The modules of a motion kind: the stage, its method, and for flow edges the method of the flow."""
    methods = [kind.method]
    if kind.method == "flow_edges":
        methods.append(kind.parameters.get("source", "raft"))
    # The method itself refuses an unknown source.
    return [STAGE, *(METHODS[method] for method in methods if method in METHODS)]

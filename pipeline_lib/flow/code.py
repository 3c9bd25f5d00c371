"""Which modules compute a motion kind: imports no torch, so that a workflow can ask while it is parsed."""

from pipeline_lib.configuration.data import Motion

# Names alone: a stage's fingerprint covers the methods that these name.
SHAPES_NO_ARTEFACT = True

STAGE = "pipeline_lib.flow.motion_stage"

STRENGTH = ("pipeline_lib.flow.strength_stage",)
"""The modules that measure how strong the motion of each frame is."""

METHODS = {
    "tvl1": "pipeline_lib.flow.tvl1.method",
    "farneback": "pipeline_lib.flow.farneback",
    "raft": "pipeline_lib.flow.raft.method",
    "flow_edges": "pipeline_lib.flow.flow_edges",
    "frame_difference": "pipeline_lib.flow.frame_difference",
}
"""Each motion method's module, which has ``create(kind, device, num_threads) -> MotionMethod``."""


def motion_modules(kind: Motion) -> list[str]:
    """Of a motion kind: the stage, its method, and the method of the flow that flow edges are made from."""
    methods = [kind.method]
    if kind.method == "flow_edges":
        methods.append(kind.parameters.get("source", "raft"))
    # The method itself refuses a source that does not exist.
    return [STAGE, *(METHODS[method] for method in methods if method in METHODS)]

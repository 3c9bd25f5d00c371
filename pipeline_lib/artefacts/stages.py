"""The modules that each stage runs: the closure of these is the stage's fingerprint.

Names only, nothing is imported: the Snakefile asks on every start, and the stages write the same list's fingerprint
into their artefacts. A motion kind's list is in ``flow.code``, a training's in ``training.code``.
"""

SHAPES_NO_ARTEFACT = True

GENERATE = ["pipeline_lib.generation.stage"]
MANIFEST = ["pipeline_lib.manifests.build"]
FRAMES = ["pipeline_lib.media.frames_stage"]
STRENGTH = ["pipeline_lib.flow.strength_stage"]
EVALUATION = ["pipeline_lib.evaluation.runner"]
RETRIEVAL = ["pipeline_lib.evaluation.retrieval"]
ENSEMBLE = ["pipeline_lib.evaluation.ensemble"]
REPORT = ["pipeline_lib.reporting.report"]


def retrieval_modules(network: str) -> list[str]:
    """Of a retrieval: the stage and the module of the network."""
    return [*RETRIEVAL, network]


def evaluation_modules(network: str) -> list[str]:
    """Of an evaluation: the stage and the module of the network."""
    return [*EVALUATION, network]

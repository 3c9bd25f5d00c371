"""Which modules an evaluation and an ensemble run: imports no torch, for the workflow asks while parsed."""

from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.models.catalogue import resolve

ENSEMBLE_MODULES = ("pipeline_lib.evaluation.ensemble",)
"""What the fingerprint of an ensemble covers."""


def evaluation_modules(specification: TrainingSpecification) -> list[str]:
    """What the fingerprint of an evaluation of this training covers: the stage and the network's own module."""
    return ["pipeline_lib.evaluation.runner", resolve(specification.model.name)[0]]

"""Which modules a training runs: imports no torch, so that a workflow can ask while it is parsed."""

from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.models.catalogue import resolve

RUN = "pipeline_lib.training.run"


def objective_module(name: str) -> str:
    """The module of an objective."""
    return f"pipeline_lib.training.objectives.{name}"


def training_modules(specification: TrainingSpecification) -> list[str]:
    """Roots of the fingerprint of one training: the trainer, its objective, its network and its teacher's.

    The trainer imports the last three by name, so that an edit to one network does not retrain the others.
    """
    modules = {RUN, objective_module(specification.objective.name), resolve(specification.model.name)[0]}
    if specification.objective.name == "modist" and specification.objective.sees_motion:
        modules.add(resolve(specification.objective.motion_network.name)[0])
    if specification.teacher is not None:
        modules.add(resolve(specification.teacher.model.name)[0])
    return sorted(modules)

"""Which modules a training runs: imports no torch, so that a workflow can ask while it is parsed."""

from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.models.catalogue import resolve

RUN = "pipeline_lib.training.run"


def training_modules(specification: TrainingSpecification) -> list[str]:
    """Roots of the fingerprint of one training: the trainer, its objective, its networks and its teacher's.

    The trainer imports all but the first by name, so that an edit to one network does not retrain the others.
    """
    networks = [specification.model, *specification.objective.networks.values()]
    if specification.teacher is not None:
        networks.append(specification.teacher.model)
    return sorted({RUN, specification.objective.module, *(resolve(model.name)[0] for model in networks)})

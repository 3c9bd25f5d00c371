"""Which modules a training runs. This module imports no torch, so that a workflow can ask while it is parsed."""

from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.models.catalogue import resolve
from pipeline_lib.tasks.files import metrics_module, task_module

RUN = "pipeline_lib.training.run"


def training_modules(specification: TrainingSpecification) -> list[str]:
    """The modules that a training's fingerprint covers: the trainer, its objective, its networks and its teacher's.

    The trainer imports objective and networks by name, so that an edit to one network does not retrain the others.
    """
    networks = [specification.model, *specification.objective.networks.values()]
    if specification.teacher is not None:
        networks.append(specification.teacher.model)
    modules = {RUN, specification.objective.module, *(resolve(model.name)[0] for model in networks)}
    task = specification.objective.task
    if specification.recipe.validation_steps and task is not None:
        # What is judged on the way decides which weights are the best.
        modules |= {task_module(task), metrics_module(task)}
    return sorted(modules)

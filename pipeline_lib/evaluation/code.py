"""The modules of the stages that judge a network. Imports no torch, so that a workflow can ask while it is parsed."""

from pipeline_lib.models.catalogue import resolve
from pipeline_lib.tasks.files import combination_module, metrics_module, task_module

SHAPES_NO_ARTEFACT = True


def evaluation_modules(network: str, task: str) -> list[str]:
    """The modules of an evaluation: the stage, the task, and that of the network, by its name in the catalogue."""
    return ["pipeline_lib.evaluation.runner", task_module(task), metrics_module(task), resolve(network)[0]]


def retrieval_modules(network: str, task: str) -> list[str]:
    """The modules of a retrieval."""
    return ["pipeline_lib.evaluation.retrieval", task_module(task), resolve(network)[0]]


def ensemble_modules(task: str) -> list[str]:
    """The modules of an ensemble, which needs no network."""
    return ["pipeline_lib.evaluation.ensemble", combination_module(task), metrics_module(task)]

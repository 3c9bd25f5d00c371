"""The modules of the stages that judge a network. Imports no torch, so that a workflow can ask while it is parsed."""

from pipeline_lib.models.catalogue import resolve
from pipeline_lib.tasks.files import combination_module, metrics_module, task_module

SHAPES_NO_ARTEFACT = True


def evaluation_modules(network: str, task: str) -> list[str]:
    """Of an evaluation: the stage, the task, and the module of the network, by its name in the catalogue."""
    return ["pipeline_lib.evaluation.runner", task_module(task), metrics_module(task), resolve(network)[0]]


def retrieval_modules(network: str, task: str) -> list[str]:
    """Of a retrieval."""
    return ["pipeline_lib.evaluation.retrieval", task_module(task), resolve(network)[0]]


def ensemble_modules(task: str) -> list[str]:
    """Of an ensemble: no network computes anything."""
    return ["pipeline_lib.evaluation.ensemble", combination_module(task), metrics_module(task)]

"""The modules of a task by its name, and what it does with files of predictions without a network."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.records import Record, read_record
from pipeline_lib.errors import UserError
from pipeline_lib.tasks import TASKS


def task_module(task: str) -> str:
    """The module of a task that predicts."""
    return f"pipeline_lib.tasks.{task}.task"


def metrics_module(task: str) -> str:
    """The module that judges a task's predictions."""
    return f"pipeline_lib.tasks.{task}.metrics"


def combination_module(task: str) -> str:
    """The module that combines a task's predictions."""
    return f"pipeline_lib.tasks.{task}.combination"


def task_of(predictions: Path) -> str:
    """The task whose predictions a file holds.

    Raises:
        UserError: it is not a file of predictions.
    """
    task = ((read_record(predictions) or {}).get("parameters") or {}).get("task")
    if task not in TASKS:
        raise UserError(
            f"{predictions} cannot be read as a file of predictions. The rules evaluate_run and ensemble make it: "
            "delete it if it is there, and run the same target again."
        )
    return str(task)


def figures_of(task: str, predictions: Path) -> dict[str, Any]:
    """The content of ``metrics.json`` for a file of predictions: ``metrics`` (name → number), counts, and the rest.

    Raises:
        UserError: the file cannot be read, or holds nothing to judge.
    """
    figures: Callable[[Path], dict[str, Any]] = importlib.import_module(metrics_module(task)).figures
    return figures(predictions)


def combine(task: str, members: Mapping[str, Path], output: Path, record: Record) -> None:
    """Write the predictions of an ensemble from its members' files.

    Raises:
        UserError: the members have other classes, or no sample in common.
    """
    importlib.import_module(combination_module(task)).combine(members, output, record)

"""The modules of a task by its name, and what it does with files of predictions without a network."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.records import Record, require_record
from pipeline_lib.artefacts.sealing import DamageError, damage_named
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
    with damage_named(predictions, "the rules evaluate_run and ensemble make it"):
        task = (require_record(predictions).get("parameters") or {}).get("task")
    if task not in TASKS:
        raise DamageError(predictions, "it is not a file of predictions")
    return str(task)


def check_predictions(predictions: Path) -> None:
    """Read a file of predictions as a whole, some at a time.

    Raises:
        UserError: it is missing.
        DamageError: it is not as it was written.
    """
    importlib.import_module(f"pipeline_lib.tasks.{task_of(predictions)}.scores").check(predictions)


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

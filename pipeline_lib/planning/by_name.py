"""A run by its name, with changes for this once: ``--experiment d3d_demo --set recipe.steps=20``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.training import merged
from pipeline_lib.errors import UserError

if TYPE_CHECKING:
    from pipeline_lib.configuration.specification import EvaluationSpecification
    from pipeline_lib.planning.run import Run


def add_run_arguments(parser: argparse.ArgumentParser, specification: str) -> None:
    """The options that say which run: a name and its configuration, or all of it as JSON, as the rules give it."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--experiment", metavar="NAME", help="an experiment of the configuration")
    which.add_argument("--specification", metavar="JSON", help=f"{specification} as JSON: what the rules give")
    parser.add_argument("--split", type=int, help="with --experiment (default: its first)")
    parser.add_argument("--seed", type=int, help="with --experiment (default: its first)")
    parser.add_argument(
        "--configfile", type=Path, nargs="+", default=[], action="extend", help="overlays, as given to snakemake"
    )
    parser.add_argument("--project", type=Path, default=Path(), help="folder of config.yaml (default: here)")
    parser.add_argument(
        "--root",
        type=Path,
        help="output root with manifests, shards and weights (default: the configuration's; needed by --specification)",
    )


def value_of(text: str) -> Any:
    """A value of the command line: JSON where it is JSON (``1e-3``, ``[8, 16]``), else YAML (``rgb``, ``{a: 1}``)."""
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


def changes_of(settings: Sequence[str]) -> dict[str, Any]:
    """``recipe.steps=20`` … as an overlay of an experiment.

    Args:
        settings: ``KEY=VALUE``; ``recipe.KEY`` is a key of its recipe, all others are its own (``objective.weight``,
            ``model.options.width``).

    Raises:
        UserError: a setting is no ``KEY=VALUE``.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        names = key.split(".")
        if not sign or not all(names):
            raise UserError(f"--set {setting}: write KEY=VALUE, for example recipe.steps=20.")
        if names[0] == "recipe" and len(names) > 1:
            names[0] = "recipe_changes"
        try:
            value = value_of(text)
        except yaml.YAMLError:
            raise UserError(f"--set {setting}: the value is neither JSON nor YAML.") from None
        for name in reversed(names):
            value = {name: value}
        changes = merged(changes, value)
    return changes


def named_run(options: argparse.Namespace, settings: Sequence[str] = ()) -> tuple["Run", Layout]:
    """The run that the options of ``add_run_arguments`` name, and the layout of its output root.

    Args:
        options: with ``experiment``.
        settings: of ``--set``.

    Raises:
        UserError: the configuration is not valid, there is no such run, or a setting is wrong.
    """
    # Imported here: `--help` of all commands reads this module and needs no configuration.
    from pipeline_lib.configuration.merging import COMMAND_LINE
    from pipeline_lib.planning.plan import load_plan

    name = options.experiment
    plan = load_plan(options.project, options.configfile)
    plan.run(name)
    plan.datasets_behind(name)
    if settings:
        # An experiment of its own, because others may start from the one that is there, whose network it changes.
        values = plan.configuration.experiments[name].model_dump(mode="json", exclude_unset=True)
        name = f"{name}_trial"
        changes = {"experiments": {name: merged(values, changes_of(settings))}}
        try:
            plan = load_plan(options.project, options.configfile, changes)
        except UserError as error:
            # The rest of the configuration is valid: what is wrong now was set.
            own = f"{COMMAND_LINE}: experiments.{name}."
            message = str(error).replace(f"{own}recipe_changes.", "--set recipe.").replace(own, "--set ")
            raise UserError(message) from None
    return plan.run(name, options.split, options.seed), Layout(options.root or options.project / plan.layout.root)


def named_evaluation(options: argparse.Namespace, own: str = "protocols") -> tuple["EvaluationSpecification", Layout]:
    """What ``evaluate`` and ``retrieve`` get, by name or as JSON, and the layout of the output root.

    Args:
        options: of ``add_run_arguments``, and ``protocol``.
        own: the experiment's key that names its protocol, where none is asked for.

    Raises:
        UserError: the run cannot be found, or there is no such protocol.
    """
    from pipeline_lib.configuration.messages import nearest
    from pipeline_lib.configuration.specification import EvaluationSpecification

    if options.specification is not None:
        if options.root is None:
            raise UserError("--specification needs --root.")
        return EvaluationSpecification.model_validate_json(options.specification), Layout(options.root)
    run, layout = named_run(options)
    valid = run.configuration.protocols
    named = getattr(run.trained, own)
    protocol = options.protocol or (named if isinstance(named, str) else next(iter(named or ()), None))
    if protocol not in valid:
        asked = f"There is no protocol `{protocol}`" if protocol else f"experiments.{run.experiment}.{own} names none"
        raise UserError(f"{asked}: --protocol NAME. {nearest(protocol or '', valid)}")
    return run.evaluation(protocol), layout

"""A run by its name, with changes for this once: ``--experiment d3d_demo --set recipe.steps=20``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.errors import UserError

if TYPE_CHECKING:
    from pipeline_lib.configuration.specification import EvaluationSpecification
    from pipeline_lib.planning.plan import Plan
    from pipeline_lib.planning.run import Run

SET_HELP = "change values for this once: experiments.d3d_demo.objective.weight=10, select=[d3d_demo], …"


def add_configuration_arguments(parser: argparse.ArgumentParser, set_help: str = SET_HELP) -> None:
    """The options that say which configuration is read: its folder, overlays, and single values."""
    parser.add_argument("--project", type=Path, default=Path(), help="folder of config.yaml (default: here)")
    parser.add_argument(
        "--configfile", type=Path, nargs="+", default=[], action="extend", help="overlays, as given to snakemake"
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=set_help)


def plan_of(options: argparse.Namespace) -> "Plan":
    """The plan of the configuration that the options of ``add_configuration_arguments`` name.

    Raises:
        UserError: the configuration is not valid, or a setting is wrong.
    """
    # Imported here: `--help` of all commands reads this module and needs no configuration.
    from pipeline_lib.planning.plan import load_plan

    return load_plan(options.project, options.configfile, settings=options.set)


def add_run_arguments(parser: argparse.ArgumentParser, specification: str, set_help: str = SET_HELP) -> None:
    """The options that say which run: a name and its configuration, or all of it as JSON, as the rules give it."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--experiment", metavar="NAME", help="an experiment of the configuration")
    which.add_argument("--specification", metavar="JSON", help=f"{specification} as JSON: what the rules give")
    parser.add_argument("--split", type=int, help="with --experiment (default: its first)")
    parser.add_argument("--seed", type=int, help="with --experiment (default: its first)")
    add_configuration_arguments(parser, set_help)
    parser.add_argument(
        "--root",
        type=Path,
        help="output root with manifests, shards and weights (default: the configuration's; needed by --specification)",
    )


def own_settings(settings: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """Settings of the whole configuration, and those of one experiment under its full key.

    Args:
        settings: ``KEY=VALUE``. ``experiments.…``, ``datasets.…`` and so on are keys of the configuration, others are
            the experiment's own (``objective.weight``, ``start``), of which ``recipe.KEY`` is a key of its recipe.
        name: of the experiment.

    Raises:
        UserError: a setting is no ``KEY=VALUE``.
    """
    from pipeline_lib.configuration.experiments import Experiment
    from pipeline_lib.configuration.root import Configuration
    from pipeline_lib.configuration.settings import split

    of_all = set(Configuration.model_fields) - set(Experiment.model_fields)
    whole, own = [], []
    for setting in settings:
        names, text = split(setting)
        if names[0] in of_all:
            whole.append(setting)
            continue
        if names[0] == "recipe" and len(names) > 1:
            names = ("recipe_changes", *names[1:])
        own.append(f"experiments.{name}.{'.'.join(names)}={text}")
    return whole, own


def named_run(options: argparse.Namespace, settings: Sequence[str] = ()) -> tuple["Run", Layout]:
    """The run that the options of ``add_run_arguments`` name, and the layout of its output root.

    Args:
        options: with ``experiment``.
        settings: of ``--set``, among them the experiment's own keys.

    Raises:
        UserError: the configuration is not valid, there is no such run, or a setting is wrong.
    """
    # Imported here: `--help` of all commands reads this module and needs no configuration.
    from pipeline_lib.configuration.settings import SET
    from pipeline_lib.planning.plan import load_plan

    name = options.experiment
    trial = f"{name}_trial"
    whole, own = own_settings(settings, trial)
    plan = load_plan(options.project, options.configfile, settings=whole)
    plan.run(name)
    plan.datasets_behind(name)
    if own:
        # An experiment of its own, because others may start from the one that is there, whose network it changes.
        values = plan.configuration.experiments[name].model_dump(mode="json", exclude_unset=True)
        try:
            plan = load_plan(options.project, options.configfile, {"experiments": {trial: values}}, [*whole, *own])
        except UserError as error:
            # The rest of the configuration is valid: what is wrong now was set.
            message = str(error).replace(f"experiments.{trial}.recipe_changes.", "recipe.")
            message = message.replace(f"experiments.{trial}.", "").replace(f"{SET}: ", f"{SET} ")
            raise UserError(message) from None
        name = trial
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
    plan = plan_of(options)
    run = plan.run(options.experiment, options.split, options.seed)
    layout = Layout(options.root or options.project / plan.layout.root)
    valid = run.configuration.protocols
    named = getattr(run.trained, own)
    protocol = options.protocol or (named if isinstance(named, str) else next(iter(named or ()), None))
    if protocol not in valid:
        asked = f"There is no protocol `{protocol}`" if protocol else f"experiments.{run.experiment}.{own} names none"
        raise UserError(f"{asked}: --protocol NAME. {nearest(protocol or '', valid)}")
    return run.evaluation(protocol), layout

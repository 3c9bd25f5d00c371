"""``experiments``: what can be trained and combined, with the numbers of the papers."""

import argparse
import json
from pathlib import Path
from typing import Any

HELP = "list the experiments: stage, data set, network, recipe, and the paper's table and numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments or targets to show (default: all)")
    parser.add_argument("--project", type=Path, default=Path(), help="folder of config.yaml (default: here)")
    parser.add_argument("--configfile", type=Path, nargs="*", default=[], help="overlays, as given to snakemake")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of the table")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.configuration.messages import nearest
    from pipeline_lib.errors import UserError
    from pipeline_lib.planning.plan import load_plan
    from pipeline_lib.text_table import text_table

    plan = load_plan(options.project, options.configfile)
    configuration = plan.configuration
    for name in options.names:
        valid = [*configuration.experiments, *plan.targets]
        if name not in valid:
            raise UserError(f"There is no experiment or target `{name}`. {nearest(name, valid)}")
    names = plan.experiments_of(*options.names) if options.names else list(configuration.experiments)
    entries = [_entry(plan, name) for name in names]
    if options.json:
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return 0
    columns = ("experiment", "stage", "data set", "network", "recipe", "starts from", "paper", "description")
    print(text_table(columns, map(_cells, entries), left=range(len(columns))))
    return 0


def _entry(plan: Any, name: str) -> dict[str, Any]:
    """What the plan says of one experiment or ensemble, and its recipe."""
    reported = plan.reported(name)
    entry = plan.configuration.experiments[name]
    keys = (
        *("name", "description", "stage", "dataset", "modality", "motion", "model", "teacher", "start"),
        *("members", "splits", "seeds", "protocols", "differs"),
    )
    values = {key: getattr(reported, key) for key in keys}
    values["printed"] = [one.model_dump() for one in reported.printed]
    values["recipe"] = getattr(entry, "recipe", None)
    return values


def _printed(one: dict[str, Any], first_protocol: str) -> str:
    """A paper's table and the numbers that it prints."""
    numbers = ", ".join(f"{key} {value:g}" for key, value in one["figures"].items())
    under = "" if one["protocol"] == first_protocol else f" ({one['protocol']})"
    return f"{one['source']}{under}: {numbers}"


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    from pipeline_lib.configuration.experiments import RANDOM

    sources = [*entry["members"], *(entry[key] for key in ("teacher", "start") if entry[key] not in (None, RANDOM))]
    network = entry["model"] or ""
    return (
        entry["name"],
        entry["stage"],
        entry["dataset"],
        f"{network} ({entry['modality']})".strip(),
        entry["recipe"] or "",
        ", ".join(sources),
        "; ".join(_printed(one, entry["protocols"][0]) for one in entry["printed"]),
        entry["description"],
    )

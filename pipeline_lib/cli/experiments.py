"""``experiments``: what can be trained and combined, with the numbers of the papers."""

import argparse
import json
import shutil
import sys
from typing import Any

from pipeline_lib.planning.by_name import add_configuration_arguments, plan_of

HELP = "list the experiments: stage, data set, network, recipe, and the paper's table and numbers"

COLUMNS = ("experiment", "stage", "data set", "network", "recipe", "starts from", "paper", "description")
LEFT_OUT_FIRST = (6, 5, 4, 3, 2)
"""Columns that a narrow terminal does not show: the papers' numbers first, then sources, recipe, network, data set."""
GAP = 2
LEAST_DESCRIPTION = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="experiments, targets, or words that occur in an experiment's line (default: all experiments)",
    )
    parser.add_argument("--stage", help="only those of a stage: distill, finetune, train_teacher, …")
    parser.add_argument("--dataset", help="only those on a data set")
    add_configuration_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of the table")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.configuration.messages import nearest
    from pipeline_lib.errors import UserError
    from pipeline_lib.text_table import text_table

    plan = plan_of(options)
    configuration = plan.configuration
    valid = [*configuration.experiments, *plan.targets]
    words = [name for name in options.names if name not in valid]
    named = [name for name in options.names if name in valid]
    names = plan.experiments_of(*named) if named else list(configuration.experiments)
    entries = [_entry(plan, name) for name in names]
    for key, wanted in (("stage", options.stage), ("dataset", options.dataset)):
        known = {entry[key] for entry in entries}
        if wanted is not None and wanted not in known:
            raise UserError(f"--{key} {wanted}: no experiment here has it. {nearest(wanted, known)}")
        entries = [entry for entry in entries if wanted in (None, entry[key])]
    for word in words:
        entries = [entry for entry in entries if any(word.lower() in cell.lower() for cell in _cells(entry))]
        if not entries:
            raise UserError(
                f"There is no experiment or target `{word}`, and no line of an experiment has this word. "
                f"{nearest(word, valid)}"
            )
    if options.json:
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return 0
    rows = list(map(_cells, entries))
    if sys.stdout.isatty():
        columns, rows = _fitting(rows, shutil.get_terminal_size().columns)
    else:
        columns = COLUMNS
    print(text_table(columns, rows, left=range(len(columns))))
    if len(columns) < len(COLUMNS):
        left_out = ", ".join(column for column in COLUMNS if column not in columns)
        print(f"\n{len(rows)} experiments. Not shown here: {left_out}. A file or a pipe gets all, --json every value.")
    return 0


def _fitting(rows: list[tuple[str, ...]], width: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns, and the rows of them, that fit into lines of ``width`` characters.

    Columns are left out, least needed first, until the description has room; then it is cut with an ellipsis.
    """
    kept = list(range(len(COLUMNS)))

    def taken(column: int) -> int:
        # The table sets two blanks around a header.
        return max([len(COLUMNS[column]) + 2, *(len(row[column]) for row in rows)]) + GAP

    for column in LEFT_OUT_FIRST:
        if sum(taken(one) for one in kept[:-1]) + LEAST_DESCRIPTION <= width:
            break
        kept.remove(column)
    room = max(GAP, width - sum(taken(one) for one in kept[:-1]))

    def cut(row: tuple[str, ...]) -> tuple[str, ...]:
        text = row[-1]
        return (*(row[one] for one in kept[:-1]), text if len(text) <= room else text[: room - 1] + "…")

    return tuple(COLUMNS[one] for one in kept), [cut(row) for row in rows]


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

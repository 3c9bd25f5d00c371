"""``tables``: the tables and figures of the papers, and what is missing to run each."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline_lib.configuration.tables import PaperTable

from pipeline_lib.planning.by_name import add_configuration_arguments, plan_of

HELP = "list the papers' tables and figures: what they print, which rows stand here, what is missing to run each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="tables to show row by row (default: a line for each)")
    add_configuration_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a list of objects instead")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/experiments.md")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.atomic import write_bytes
    from pipeline_lib.configuration.messages import nearest
    from pipeline_lib.errors import UserError
    from pipeline_lib.planning.paper_tables import counted, figure_names, lacking, missing, not_yet, with_tables
    from pipeline_lib.text_table import text_table

    plan = plan_of(options)
    tables = plan.configuration.tables
    for name in options.names:
        if name not in tables:
            raise UserError(f"There is no table `{name}`. {nearest(name, tables)}")
    if options.write:
        path = options.project / "docs" / "experiments.md"
        write_bytes(path, with_tables(path.read_text(encoding="utf-8"), plan).encode())
        print(f"{path}: written")
        return 0
    chosen = {name: tables[name] for name in options.names or tables}
    if options.json:
        entries = [
            {"name": name, **table.model_dump(), "experiments": table.experiments, "missing": missing(plan, name)}
            for name, table in chosen.items()
        ]
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return 0
    if not options.names:
        rows = [
            (
                *(name, table.source, counted(table), lacking(plan, name) or ("nothing" if table.experiments else "")),
                *("; ".join(not_yet(table)), figure_names(table)),
            )
            for name, table in chosen.items()
        ]
        print(text_table(("table", "paper", "here", "lacks", "not yet", "figures"), rows, left=range(6)))
        print("\n`python -m pipeline_lib tables NAME` shows one row by row, and what it needs to be run.")
        return 0
    for name, table in chosen.items():
        _show(name, table, missing(plan, name))
    return 0


def _show(name: str, table: "PaperTable", needs: list[str]) -> None:
    from pipeline_lib.text_table import text_table

    heads = ["", *(column.label for column in table.columns.values()), "ours"]
    rows = [
        [row.label, *(f"{row.printed[one]:g}" if one in row.printed else "" for one in table.columns), row.standing()]
        for row in table.rows
    ]
    print(f"{name}: {table.source}. {table.description}")
    print(text_table(heads, rows, left=(0, len(heads) - 1)))
    for note in table.notes:
        print(note)
    print("To run it: " + ("; ".join(needs) if needs else "nothing is missing") + "\n")

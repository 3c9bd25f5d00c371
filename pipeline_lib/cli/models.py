"""``models``: all networks with parameters and multiply-adds beside the papers' figures."""

import argparse
import json
from typing import Any

HELP = "list every network with its parameters and multiply-adds, beside the papers' figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks to show (default: all)")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of the table")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.models import catalogue
    from pipeline_lib.models.complexity import describe, rows
    from pipeline_lib.text_table import text_table

    for name in options.names:
        catalogue.resolve(name)
    table = [describe(row) for row in rows() if not options.names or row.name in options.names]
    if options.json:
        print(json.dumps(table, indent=1, ensure_ascii=False))
        return 0
    columns = ("network", "input", "parameters", "GMACs", "published", "ours − published", "where")
    print(text_table(columns, map(_cells, table), left=range(len(columns))))
    print(
        "\nParameters are all trainable ones; * counts kernels and matrices only, as the source did. GMACs are 10⁹ "
        "multiply-adds of one clip (torch.utils.flop_counter)."
    )
    return 0


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    units = {"parameters": "", "parameters_m": " M", "gmacs": " GMACs"}
    options = ", ".join(f"{key}={value}" for key, value in entry["options"].items())
    where = "; ".join(part for part in (entry["source"], entry["note"]) if part)
    return (
        entry["name"] + (f" ({options})" if options else ""),
        entry["input"],
        f"{entry['parameters']:,}" + ("*" if entry["counting"] == "weights" else ""),
        f"{entry['gmacs']:.3f}",
        ", ".join(f"{value:,}{units[key]}" for key, value in entry["paper"].items()),
        ", ".join(f"{value:+,}{units[key]}" for key, value in entry["difference"].items()),
        where,
    )

"""``schema``: the JSON schemas of config.yaml, recipes, experiments and targets, from the models that check them."""

import argparse
from pathlib import Path

HELP = "check or write the JSON schemas of the configuration (workflow/schemas)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", action="store_true", help="write them (default: say which are not up to date)")
    parser.add_argument("--project", type=Path, default=Path(), help="folder of config.yaml (default: here)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.atomic import write_bytes
    from pipeline_lib.configuration.schemas import FOLDER, outdated, schemas

    folder = options.project / FOLDER
    names = outdated(folder)
    if not names:
        print(f"{folder}: {len(schemas())} schemas, all up to date")
        return 0
    for name in names:
        if options.write:
            write_bytes(folder / name, schemas()[name].encode())
        print(f"{folder / name}: {'written' if options.write else 'not up to date; write it with: schema --write'}")
    return 0 if options.write else 1

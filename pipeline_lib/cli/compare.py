"""``compare``: compares two score files of one task."""

import argparse
import json
from pathlib import Path

HELP = "the paired difference of two score files, in detail too, and how far their predictions are apart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, help="scores.h5")
    parser.add_argument("second", type=Path, help="scores.h5 of the same videos")
    parser.add_argument("--classes", type=int, default=10, help="classes to show, most different first (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.errors import UserError
    from pipeline_lib.tasks.files import task_of
    from pipeline_lib.tasks.results import load_presentation

    tasks = [task_of(path) for path in (options.first, options.second)]
    if tasks[0] != tasks[1]:
        raise UserError(f"{options.first} holds predictions of the task {tasks[0]}, {options.second} of {tasks[1]}.")
    found = load_presentation(tasks[0]).comparison(options.first, options.second)
    print(json.dumps(found.data, ensure_ascii=False) if options.json else found.text(max(0, options.classes)))
    return 0

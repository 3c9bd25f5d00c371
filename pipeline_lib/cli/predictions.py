"""``predictions``: what an evaluation predicts, as a list for a spreadsheet or for a server that judges a test list."""

import argparse
from pathlib import Path

HELP = "write the predicted classes of a score file, also of a list without labels, as CSV or for a server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scores", type=Path, help="scores.h5 of an evaluation or an ensemble")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--form",
        choices=("csv", "something"),
        default="csv",
        help="csv: id, rank, class, probability; something: 'id;class' a line, for Something-something's server",
    )
    parser.add_argument("--top", type=int, default=5, help="classes of each video in the csv (default: 5)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.atomic import atomic_path
    from pipeline_lib.errors import UserError
    from pipeline_lib.tasks.classification.predictions import write_csv, write_something
    from pipeline_lib.tasks.classification.scores import ScoreFile

    if options.top < 1:
        raise UserError(f"--top {options.top}: at least one class is written.")
    scores = ScoreFile(options.scores)
    with atomic_path(options.out) as temporary:
        if options.form == "csv":
            write_csv(scores, temporary, options.top)
        else:
            write_something(scores, temporary)
    print(f"{options.out}: {len(scores.videos)} videos")
    return 0

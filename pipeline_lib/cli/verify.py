"""``verify``: is everything below an output root as it was written?"""

import argparse
import os
from pathlib import Path

HELP = "check that all artefacts are as they were written; exit status 1 if any is damaged or missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("output"), help="output root, or a folder below (default: output)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="files at a time (default: all cores)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.reporting.verification import verify

    found = verify(options.folder, options.threads)
    print("\n".join(found.lines()))
    return 0 if found.is_sound else 1

"""``motion-strength``: the table with the strength of each frame's motion in a shard."""

import argparse
from pathlib import Path

HELP = "measure how strong the motion of each frame of a motion shard is (MoDist's threshold)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--motion", required=True, type=Path, help="motion shard to read (.h5)")
    parser.add_argument("--output", required=True, type=Path, help="table to write (.strength.parquet)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.flow.strength_stage import measure_strength

    measure_strength(options.motion, options.output)
    return 0

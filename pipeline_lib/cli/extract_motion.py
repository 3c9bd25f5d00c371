"""``extract-motion``: the motion stage for one shard."""

import argparse
import os
from pathlib import Path

HELP = "compute the motion (flow, flow edges, frame difference) of one shard of frames"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specification", required=True, help="MotionSpecification as JSON")
    parser.add_argument("--frames", required=True, type=Path, help="frames shard to read (.h5)")
    parser.add_argument(
        "--videos", nargs="?", type=Path, help="of flow that is read from files: shards/{shard}.json of the manifest"
    )
    parser.add_argument("--output", required=True, type=Path, help="motion shard to write (.h5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    parser.add_argument(
        "--maximum-loss-share", type=float, default=1.0, help="share of unusable videos that fails the shard"
    )


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.configuration.motions import METHODS
    from pipeline_lib.configuration.specification import MotionSpecification
    from pipeline_lib.errors import UserError

    specification = MotionSpecification.model_validate_json(options.specification)
    place = (options.output, max(1, options.threads), options.maximum_loss_share)
    if METHODS[specification.motion_kind.method].reads_files:
        from pipeline_lib.flow.precomputed import pack_motion

        if options.videos is None:
            raise UserError(f"--videos is missing: where the images of `{specification.motion}` lie.")
        pack_motion(specification, options.frames, options.videos, *place)
    else:
        from pipeline_lib.flow.motion_stage import extract_motion

        extract_motion(specification, options.frames, *place)
    return 0

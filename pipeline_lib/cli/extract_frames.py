"""``extract-frames``: one packed shard of JPEG frames from the videos of one shard list."""

import argparse
from pathlib import Path

HELP = "decode the videos of one shard and store their frames as JPEGs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specification", required=True, help="FramesSpecification as JSON")
    parser.add_argument("--videos", required=True, type=Path, help="shards/{shard}.json of the manifest")
    parser.add_argument("--output", required=True, type=Path, help="the shard, an .h5 file")
    parser.add_argument("--threads", type=int, default=1, help="videos decoded at a time")
    parser.add_argument(
        "--maximum-loss-share", type=float, default=1.0, help="share of unusable videos that fails the shard"
    )


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.configuration.specification import FramesSpecification
    from pipeline_lib.media.frames_stage import extract_frames

    specification = FramesSpecification.model_validate_json(options.specification)
    extract_frames(specification, options.videos, options.output, options.threads, options.maximum_loss_share)
    return 0

"""``train``: trains a network by a specification, and continues an interrupted training."""

import argparse
from pathlib import Path

HELP = "train a network as a specification says"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specification", required=True, help="a TrainingSpecification as JSON")
    parser.add_argument("--root", required=True, type=Path, help="the output root with manifests, shards and weights")
    parser.add_argument("--output", required=True, type=Path, help="the run's folder")
    parser.add_argument("--loader-workers", type=int, default=None, help="decoding processes; the result is the same")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.configuration.specification import TrainingSpecification
    from pipeline_lib.training.run import train

    specification = TrainingSpecification.model_validate_json(options.specification)
    return train(specification, options.root, options.output, options.loader_workers)

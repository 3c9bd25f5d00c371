"""``python -m pipeline_lib generate``: make a generated data set's videos and lists."""

import argparse
from pathlib import Path

HELP = "make the videos and lists of a generated data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specification", required=True, help="ManifestSpecification as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder of the videos and lists")
    parser.add_argument("--threads", type=int, default=1, help="videos made at a time")
    parser.add_argument("--flow", action="store_true", help="also write the true flow of every frame pair")


def run(options: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from pipeline_lib.configuration.specification import ManifestSpecification
    from pipeline_lib.errors import UserError
    from pipeline_lib.generation.stage import generate

    try:
        specification = ManifestSpecification.model_validate_json(options.specification)
    except ValidationError as error:
        raise UserError(f"--specification is not a valid ManifestSpecification: {error}") from error
    if specification.dataset.generated is None:
        raise UserError(
            f"dataset {specification.name}: format `generated` needs a section `generated` (family, num_train, …); "
            "an empty one takes the defaults"
        )
    if options.threads < 1:
        raise UserError(f"--threads {options.threads}: must be at least 1")
    generate(specification.name, specification.dataset.generated, options.output, max(options.threads, 1), options.flow)
    return 0

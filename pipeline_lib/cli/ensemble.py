"""``ensemble``: the mean of several networks' scores, from their score files alone."""

import argparse
from pathlib import Path

HELP = "combine the score files of several runs: scores.h5 and metrics.json of their mean"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specification", required=True, help="EnsembleSpecification as JSON")
    parser.add_argument("--root", required=True, type=Path, help="output root (evaluations)")
    parser.add_argument("--output", type=Path, help="folder to write (default: its place below the root)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.cli.evaluate import describe
    from pipeline_lib.configuration.specification import EnsembleSpecification
    from pipeline_lib.evaluation.ensemble import evaluate_ensemble

    specification = EnsembleSpecification.model_validate_json(options.specification)
    output = options.output or Layout(options.root).evaluation(
        specification.experiment, str(specification.split), str(specification.seed), specification.protocol_name
    )
    print(describe(evaluate_ensemble(specification, options.root, output)))
    return 0

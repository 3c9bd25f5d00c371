"""``evaluate``: the logits of every clip of one trained network, and its figures."""

import argparse
import os
from pathlib import Path

HELP = "evaluate one trained network under a protocol: scores.h5 and metrics.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specification", required=True, help="EvaluationSpecification as JSON")
    parser.add_argument("--root", required=True, type=Path, help="output root (manifests, frames, experiments)")
    parser.add_argument("--output", type=Path, help="folder to write (default: its place below the root)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.configuration.specification import EvaluationSpecification
    from pipeline_lib.evaluation.runner import evaluate

    specification = EvaluationSpecification.model_validate_json(options.specification)
    training = specification.training
    output = options.output or Layout(options.root).evaluation(
        training.experiment, str(training.split), str(training.seed), specification.protocol_name
    )
    metrics = evaluate(specification, options.root, output, max(1, options.threads))
    print(describe(metrics))
    return 0


def describe(record: dict) -> str:
    """One line about an evaluation: its figures with the counts behind them."""
    from pipeline_lib.tasks.results import load_presentation

    run = f"{record['experiment']} {record['split']}-{record['seed']} {record['protocol']}"
    return f"{run}: {load_presentation(record['task']).describe(record)}, manifest {record['manifest'][:12]}"

"""``evaluate``: the logits of every clip of one trained network, and its figures."""

import argparse
from pathlib import Path

from pipeline_lib.planning.by_name import add_run_arguments, named_evaluation

HELP = "evaluate one trained network under a protocol: scores.h5 and metrics.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, "an EvaluationSpecification")
    parser.add_argument("--protocol", help="with --experiment (default: the experiment's first)")
    parser.add_argument("--output", type=Path, help="folder to write (default: its place below the root)")
    parser.add_argument("--loader-workers", type=int, default=None, help="decoding processes; the result is the same")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.evaluation.runner import evaluate

    specification, layout = named_evaluation(options)
    training = specification.training
    output = options.output or layout.evaluation(
        training.experiment, str(training.split), str(training.seed), specification.protocol_name
    )
    metrics = evaluate(specification, layout.root, output, options.loader_workers)
    print(describe(metrics))
    return 0


def describe(record: dict) -> str:
    """One line about an evaluation: its figures with the counts behind them."""
    from pipeline_lib.tasks.results import load_presentation

    run = f"{record['experiment']} {record['split']}-{record['seed']} {record['protocol']}"
    return f"{run}: {load_presentation(record['task']).describe(record)}, manifest {record['manifest'][:12]}"

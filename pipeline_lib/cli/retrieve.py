"""``retrieve``: nearest-neighbour retrieval and k-NN accuracy with one trained network's features."""

import argparse
from pathlib import Path

from pipeline_lib.planning.by_name import add_run_arguments, named_evaluation

HELP = "find each validation video's nearest training videos by a network's features: retrieval.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, "an EvaluationSpecification")
    parser.add_argument("--protocol", help="whose clips stand for a video (default: the experiment's `retrieval`)")
    parser.add_argument("--output", type=Path, help="file to write (default: its place below the root)")
    parser.add_argument("--loader-workers", type=int, default=None, help="decoding processes; the result is the same")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.evaluation.retrieval import retrieve

    specification, layout = named_evaluation(options, "retrieval")
    training = specification.training
    output = options.output or layout.retrieval(
        training.experiment, str(training.split), str(training.seed), specification.protocol_name
    )
    record = retrieve(specification, layout.root, output, options.loader_workers)
    figures = record["metrics"]
    print(
        f"{record['experiment']} {record['split']}-{record['seed']} {record['protocol']}: "
        f"R@1 {100 * figures['recall_at_1']:.2f} %, R@5 {100 * figures['recall_at_5']:.2f} %, "
        f"R@10 {100 * figures['recall_at_10']:.2f} %, k-NN {100 * figures['knn_top1']:.2f} % "
        f"({record['num_queries']} videos ask {record['num_gallery']}, manifest {record['manifest'][:12]})"
    )
    return 0

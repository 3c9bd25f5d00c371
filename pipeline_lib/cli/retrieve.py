"""``retrieve``: nearest-neighbour retrieval and k-NN accuracy with one trained network's features."""

import argparse
import os
from pathlib import Path

HELP = "find each validation video's nearest training videos by a network's features: retrieval.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specification", required=True, help="EvaluationSpecification as JSON")
    parser.add_argument("--root", required=True, type=Path, help="output root (manifests, frames, experiments)")
    parser.add_argument("--output", type=Path, help="file to write (default: its place below the root)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="decoding processes (default: all)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.configuration.specification import EvaluationSpecification
    from pipeline_lib.evaluation.retrieval import retrieve

    specification = EvaluationSpecification.model_validate_json(options.specification)
    training = specification.training
    output = options.output or Layout(options.root).retrieval(
        training.experiment, str(training.split), str(training.seed), specification.protocol_name
    )
    record = retrieve(specification, options.root, output, max(1, options.threads))
    figures = record["metrics"]
    print(
        f"{record['experiment']} {record['split']}-{record['seed']} {record['protocol']}: "
        f"R@1 {100 * figures['recall_at_1']:.2f} %, R@5 {100 * figures['recall_at_5']:.2f} %, "
        f"R@10 {100 * figures['recall_at_10']:.2f} %, k-NN {100 * figures['knn_top1']:.2f} % "
        f"({record['num_queries']} videos ask {record['num_gallery']}, manifest {record['manifest'][:12]})"
    )
    return 0

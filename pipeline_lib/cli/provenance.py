"""``provenance``: the chain from a figure back to the annotation file."""

import argparse
import json
from pathlib import Path

HELP = "print what an artefact was made from, back to the annotation file; exit status 1 if an input changed since"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="metrics.json, scores.h5, weights.safetensors, a shard or a manifest")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.reporting.chain import chain_of

    link = chain_of(options.path)
    print(json.dumps(link.as_data(), ensure_ascii=False) if options.json else "\n".join(link.lines()))
    return 1 if any("changed since" in problem for problem in link.problems()) else 0

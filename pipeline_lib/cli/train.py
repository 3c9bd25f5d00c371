"""``train``: trains an experiment by its name, or by a specification, and continues an interrupted training."""

import argparse
from pathlib import Path

from pipeline_lib.planning.by_name import add_run_arguments

HELP = "train an experiment, or a network as a specification says"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(
        parser,
        "a TrainingSpecification",
        "change values for this once: the experiment's (recipe.steps=20, objective.weight=1, model.options.KEY=…), or "
        "the configuration's (experiments.NAME.KEY=…, hardware.device=cpu)",
    )
    parser.add_argument(
        "--overfit",
        type=int,
        metavar="N",
        help="train on the first N videos alone, again and again: a network that cannot learn these has a fault",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder to write (default: the run's, but with --set or --overfit a folder below trials/ in the root)",
    )
    parser.add_argument("--loader-workers", type=int, default=None, help="decoding processes; the result is the same")


def run(options: argparse.Namespace) -> int:
    import sys

    from pipeline_lib.configuration.specification import TrainingSpecification
    from pipeline_lib.errors import UserError
    from pipeline_lib.planning.by_name import named_run
    from pipeline_lib.training.run import train

    if options.overfit is not None and options.overfit < 1:
        raise UserError(f"--overfit {options.overfit}: at least 1 video is wanted.")
    root, output = options.root, options.output
    if options.specification is not None:
        if root is None or output is None:
            raise UserError("--specification needs --root and --output.")
        specification = TrainingSpecification.model_validate_json(options.specification)
    else:
        chosen, layout = named_run(options, options.set)
        specification, root = chosen.training, layout.root
        _, split, seed = chosen.place
        is_trial = bool(options.set) or options.overfit is not None
        output = output or (layout.trial if is_trial else layout.experiment)(options.experiment, split, seed)
        print(f"{chosen} → {output}", file=sys.stderr)
    return train(specification, root, output, options.loader_workers, options.overfit)

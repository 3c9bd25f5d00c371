"""``figure``: one figure of a paper from trained networks, as PNG or SVG."""

import argparse
from pathlib import Path

HELP = "draw a figure of a paper from trained networks (.png, .svg): temporal-weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    figures = parser.add_subparsers(dest="figure", required=True, metavar="FIGURE")
    weights = figures.add_parser(
        "temporal-weights", help="weights of convolutions at each offset in time, a box per offset (S3D-G, Figure 5)"
    )
    weights.add_argument("network", help="a trained experiment, imported/NAME, or a file of weights (.safetensors)")
    weights.add_argument(
        "--layers", nargs="+", metavar="LAYER", help="which, or all (default: four from the pixels up)"
    )
    weights.add_argument("--out", type=Path, required=True, help="picture (.png, .svg) to write")
    weights.add_argument("--root", type=Path, default=Path("output"), help="output root (default: output)")
    weights.add_argument("--split", type=int, default=1, help="split of the run (default: 1)")
    weights.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.errors import UserError
    from pipeline_lib.evaluation.prediction import find_weights
    from pipeline_lib.reporting.standalone import write_picture
    from pipeline_lib.reporting.temporal_weights import QUANTILES, chosen, figure_of, temporal_weights
    from pipeline_lib.text_table import text_table
    from pipeline_lib.training.weights import load_weights

    if options.out.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"--out {options.out}: give a .png or .svg.")
    layout = Layout(options.root)
    if options.network.endswith(".safetensors"):
        path = Path(options.network)
    elif options.network.startswith("imported/"):
        path = layout.start(options.network)
    else:
        path = find_weights(layout, options.network, options.split, options.seed)
    layers = temporal_weights(load_weights(path)[0])
    write_picture(options.out, figure_of(chosen(layers, options.layers), options.network))
    rows = [
        [entry.layer, f"{offset:+d}" if offset else "0", *(f"{value:.4f}" for value in (spread, *quantiles))]
        for entry in layers
        for offset, spread, quantiles in zip(entry.offsets, entry.spread, entry.quantiles, strict=True)
    ]
    print(text_table(["layer", "offset", "spread", *(f"{100 * q:g} %" for q in QUANTILES)], rows))
    print(f"{options.out}: boxes from the 25th to the 75th percentile, whiskers from the 2.5th to the 97.5th")
    return 0

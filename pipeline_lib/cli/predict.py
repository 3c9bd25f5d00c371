"""``predict``: the most probable classes of any video file."""

import argparse
import os
from pathlib import Path

HELP = "the top classes of a video file, by one trained experiment or the mean of several"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", type=Path, help="video file")
    parser.add_argument("--experiment", required=True, nargs="+", help="trained experiment; several are averaged")
    parser.add_argument("--root", type=Path, default=Path("output"), help="output root (default: output)")
    parser.add_argument("--split", type=int, default=1, help="split of the run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")
    parser.add_argument("--clips", default="10", help="uniformly spaced clips, or all_frames (default: 10)")
    parser.add_argument("--crops", type=int, choices=(1, 3), default=1, help="crops per clip (default: 1)")
    parser.add_argument("--top", type=int, default=5, help="how many classes to print (default: 5)")
    parser.add_argument("--short-side", type=int, help="of the frames, px; only needed if the frames shards are gone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.configuration.experiments import Protocol
    from pipeline_lib.errors import UserError
    from pipeline_lib.evaluation.prediction import as_json, find_weights, frame_format_of, predict
    from pipeline_lib.evaluation.trained import read_specification
    from pipeline_lib.text_table import text_table

    if options.clips != "all_frames" and not (options.clips.isdigit() and int(options.clips) > 0):
        raise UserError(f"--clips {options.clips}: give a positive number or all_frames.")
    if options.top < 1:
        raise UserError(f"--top {options.top}: give at least 1.")
    layout = Layout(options.root)
    weights = [find_weights(layout, name, options.split, options.seed) for name in options.experiment]
    formats = [frame_format_of(layout, read_specification(path), options.short_side) for path in weights]
    protocol = Protocol.model_validate(
        {
            "num_clips": options.clips if options.clips == "all_frames" else int(options.clips),
            "num_crops": options.crops,
        }
    )
    found = predict(options.video, weights, protocol, formats, max(1, options.threads), options.device)
    if options.json:
        print(as_json(found, options.video, options.experiment, options.top))
        return 0
    rows = [[name, f"{100 * share:.1f} %"] for name, share in found.top(options.top)]
    print(text_table(["class", "probability"], rows))
    print(f"{' + '.join(options.experiment)}: {found.num_clips} clips of {found.num_frames} frames of {options.video}")
    return 0

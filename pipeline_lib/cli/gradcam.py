"""``gradcam``: where in a video a trained network sees what speaks for a class, beside a second network."""

import argparse
import os
from pathlib import Path

HELP = "where in a video a network sees what speaks for a class (Grad-CAM), as a picture or a film"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", type=Path, help="video file")
    parser.add_argument("--experiment", required=True, help="trained experiment with a classifier")
    parser.add_argument("--against", metavar="EXPERIMENT", help="a second one, shown beside it")
    parser.add_argument("--out", type=Path, required=True, help="picture (.png, .svg) or film (.mp4) to write")
    parser.add_argument("--endpoint", help="whose activation is weighted (default: the deepest with 4×4 positions)")
    parser.add_argument("--against-endpoint", metavar="ENDPOINT", help="of the second (default: the same)")
    parser.add_argument("--class", dest="class_name", help="name of the class (default: what each network predicts)")
    parser.add_argument(
        "--over",
        choices=("space", "space_time"),
        default="space",
        help="what gradients are averaged over: space weights each time step apart (default: space)",
    )
    parser.add_argument("--clips", default="1", help="uniformly spaced clips, or all_frames (default: 1, the middle)")
    parser.add_argument("--moments", type=int, default=6, help="columns of a picture (default: 6)")
    parser.add_argument("--root", type=Path, default=Path("output"), help="output root (default: output)")
    parser.add_argument("--split", type=int, default=1, help="split of the runs (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the runs (default: 0)")
    parser.add_argument("--short-side", type=int, help="of the frames, px; only needed if the frames shards are gone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.errors import UserError

    if options.out.suffix.lower() not in (".png", ".svg", ".mp4"):
        raise UserError(f"--out {options.out}: give a .png or .svg (a picture) or an .mp4 (a film).")
    if options.clips != "all_frames" and not (options.clips.isdigit() and int(options.clips) > 0):
        raise UserError(f"--clips {options.clips}: give a positive number or all_frames.")
    if options.moments < 1:
        raise UserError(f"--moments {options.moments}: give at least 1.")
    if options.against_endpoint and not options.against:
        raise UserError("--against-endpoint needs --against, the second experiment.")

    from pipeline_lib.evaluation.experiment import load
    from pipeline_lib.reporting.gradcam_pictures import write_gradcam

    clips = options.clips if options.clips == "all_frames" else int(options.clips)
    wanted = [(options.experiment, options.endpoint)]
    if options.against:
        wanted.append((options.against, options.against_endpoint or options.endpoint))
    cams = []
    for name, endpoint in wanted:
        threads = max(1, options.threads)
        network = load(name, options.root, options.split, options.seed, options.device, options.short_side, threads)
        cam = network.gradcam(options.video, options.class_name, endpoint, clips, options.over)
        if not cam.maps.any():
            print(f"{name}: nothing in these frames speaks for `{cam.class_name}` at {cam.endpoint}; its map is empty.")
        cams.append(cam)
    write_gradcam(options.out, cams, options.moments)
    for cam in cams:
        print(f"{cam.experiment} at {cam.endpoint}: {cam.class_name} ({100 * cam.probability:.1f} %)")
    print(f"{options.out}: {cams[0].seconds.shape[0]} clip(s) of {cams[0].seconds.shape[1]} frames of {options.video}")
    return 0

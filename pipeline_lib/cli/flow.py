"""``flow``: the motion of a video as a film or as numbers, or a comparison of methods."""

import argparse
import json
from pathlib import Path
from typing import Any

HELP = "flow of a video as a film (.mp4) or numbers (.h5); `flow compare VIDEO` compares methods"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from pipeline_lib.configuration.motions import METHODS

    parser.add_argument("video", nargs="+", help="the video; or `compare` and the video")
    parser.add_argument(
        "--method",
        choices=[name for name, one in METHODS.items() if not one.reads_files],
        default="tvl1",
        help="motion method (default: tvl1)",
    )
    parser.add_argument(
        "--methods",
        default="tvl1,farneback",
        help="compare: methods, the first is the reference (default: %(default)s)",
    )
    parser.add_argument("--parameters", default="{}", help="the method's parameters as JSON; compare: by method")
    parser.add_argument("--gap", type=int, default=1, help="flow from frame t to t + GAP (default: 1)")
    parser.add_argument("--out", type=Path, help="flow.mp4 or flow.h5; compare: a picture (.png)")
    parser.add_argument("--short-side", type=int, default=256, help="scale down to this (default: 256)")
    parser.add_argument("--frames", type=int, default=250, help="at most this many frames (default: 250)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")


def _parameters(text: str) -> dict[str, Any]:
    from pipeline_lib.errors import UserError

    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"--parameters is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError('--parameters must be a JSON object, for example {"iterations": 30}')
    return value


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.errors import UserError

    words = list(options.video)
    compare = words[0] == "compare" and len(words) == 2
    if len(words) != (2 if compare else 1):
        raise UserError("give one video: `flow VIDEO --out flow.mp4`, or `flow compare VIDEO`")
    if options.gap == 0:
        raise UserError("--gap is 0; it must be at least 1 or at most −1")
    return _compare(options, Path(words[1])) if compare else _film(options, Path(words[0]))


def _fields(options: argparse.Namespace, name: str, parameters: dict[str, Any], frames: Any) -> tuple[Any, Any]:
    """The method and its motion of the frames."""
    import os

    from pipeline_lib.configuration.data import Motion
    from pipeline_lib.device import choose_device
    from pipeline_lib.flow.film import compute
    from pipeline_lib.flow.methods import create_method

    kind = Motion(method=name, gap=options.gap, parameters=parameters)
    device = choose_device(options.device, without_gpu="warn")
    method = create_method(kind, device, options.threads or len(os.sched_getaffinity(0)))
    return method, compute(method, frames, options.gap)


def _film(options: argparse.Namespace, video: Path) -> int:
    from pipeline_lib.errors import UserError
    from pipeline_lib.flow.film import read_video, side_by_side, write_film, write_numbers

    out = options.out
    if out is None or out.suffix not in (".mp4", ".h5"):
        raise UserError(f"--out is {out}; it must end in .mp4 (a film) or .h5 (the numbers)")
    frames, rate = read_video(video, options.short_side, options.frames)
    method, fields = _fields(options, options.method, _parameters(options.parameters), frames)
    if out.suffix == ".mp4":
        write_film(out, side_by_side(frames, fields, options.gap), rate)
    else:
        attributes = {
            "method": options.method,
            "parameters": json.dumps(method.parameters, sort_keys=True),
            "gap": options.gap,
            "channels": json.dumps(method.quantisation.channels),
            "unit": method.quantisation.unit,
            "frames_per_second": rate,
        }
        write_numbers(out, fields, attributes)
    print(f"{out}: {len(fields)} fields of {frames.shape[2]}×{frames.shape[1]} px by {options.method}")
    return 0


def _compare(options: argparse.Namespace, video: Path) -> int:
    import cv2

    from pipeline_lib.artefacts.atomic import write_bytes
    from pipeline_lib.configuration.motions import METHODS
    from pipeline_lib.errors import UserError
    from pipeline_lib.flow.film import comparison, comparison_picture, read_video
    from pipeline_lib.flow.methods import pair_indices

    names = [name.strip() for name in options.methods.split(",")]
    valid = [name for name, method in METHODS.items() if method.is_flow and not method.reads_files]
    unknown = [name for name in names if name.partition(":")[0] not in valid]
    if len(names) < 2 or unknown:
        raise UserError(
            f"--methods is {options.methods!r}; give two or more of {', '.join(valid)}, with a comma between; "
            "tvl1:opencv and tvl1:library are TV-L1 in these modes"
        )
    parameters = _parameters(options.parameters)
    frames, _ = read_video(video, options.short_side, options.frames)
    fields = []
    for name in names:
        method, _, mode = name.partition(":")
        own = dict(parameters.get(name, parameters.get(method, {}))) | ({"mode": mode} if mode else {})
        fields.append(_fields(options, method, own, frames)[1])
    rows = comparison(names, fields)
    for row in rows:
        print(
            f"{row['method']} against {row['reference']}: mean {row['mean']:.4f} px, median {row['median']:.4f}, "
            f"p99 {row['p99']:.3f}, within 0.1 px {100 * row['share_within_0.1']:.1f} %, "
            f"the reference moves {row['reference_magnitude']:.2f} px"
        )
    if options.out is not None:
        if options.out.suffix != ".png":
            raise UserError(f"--out is {options.out}; compare writes a .png")
        middle = len(fields[0]) // 2
        first, _ = pair_indices(len(frames), options.gap)[middle]
        image = comparison_picture(frames[first], [field[middle] for field in fields])
        write_bytes(options.out, cv2.imencode(".png", image[..., ::-1])[1].tobytes())
        print(f"{options.out}: frame {first} and the methods' colours; below, their distance from {names[0]}")
    return 0

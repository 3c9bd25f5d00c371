"""``export``: a trained network for use elsewhere, as safetensors with a card, and as ONNX checked against torch."""

import argparse
import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json

HELP = "export a trained network: safetensors with a card, and ONNX checked with onnxruntime"
# Largest difference between torch's and onnxruntime's logits, relative to the largest logit, in float32.
TOLERANCE = 1e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="a trained experiment")
    parser.add_argument("--root", type=Path, default=Path("output"), help="the output root (default: output)")
    parser.add_argument("--split", type=int, default=1, help="split of the run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")
    parser.add_argument("--out", type=Path, help="folder to write (default: OUTPUT_ROOT/exports/EXPERIMENT/SPLIT-SEED)")
    parser.add_argument("--no-onnx", action="store_true", help="leave out ONNX")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.atomic import write_bytes
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.evaluation.prediction import find_weights, stored_frame_format
    from pipeline_lib.evaluation.trained import read_specification
    from pipeline_lib.training.networks import load_network
    from pipeline_lib.training.weights import save_weights

    layout = Layout(options.root)
    place = (options.experiment, str(options.split), str(options.seed))
    weights = find_weights(layout, options.experiment, options.split, options.seed)
    network, metadata = load_network(weights)
    out: Path = options.out or layout.export(*place)
    save_weights(out / "model.safetensors", network.state_dict(), metadata)
    written = "model.safetensors, README.md"
    fixed: dict[str, str] | None = None
    if not options.no_onnx:
        difference, fixed = _export_onnx(network, metadata, out / "model.onnx")
        written += f", model.onnx (largest difference from torch {difference:.1e} of the largest logit)"
    stored = stored_frame_format(layout, read_specification(weights))
    short_side = stored.short_side if stored is not None else _short_side(metadata["input"])
    write_bytes(out / "README.md", _card(options, metadata, fixed, short_side).encode())
    print(f"{out}: {written}")
    for axis, reason in (fixed or {}).items():
        print(f"model.onnx: fixed {axis}: {reason}")
    return 0


def _short_side(described: Mapping[str, Any]) -> int:
    """The least short side, pixels, of frames from which a clip can be taken without enlarging them."""
    resize, short_side = described.get("resize"), described.get("short_side")
    return int(min(resize) if resize is not None else short_side[0] if short_side else described["crop"])


AXES = {0: "batch", 2: "frames", 3: "height", 4: "width"}
"""The axes of a clip that may be free, and their names in the ONNX file."""


def _export_onnx(network: Any, metadata: dict[str, Any], path: Path) -> tuple[float, dict[str, str]]:
    """Write ONNX with as many free axes as the network allows, checked at three shapes.

    Returns:
        The largest relative difference from torch, and each axis that is fixed with the reason.

    Raises:
        UserError: the ``export`` extra is not installed, or onnxruntime computes something else.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs onnx, onnxscript and onnxruntime ({error}): pip install 'pipeline_lib[export]', or --no-onnx"
        ) from error
    from pipeline_lib.artefacts.atomic import atomic_path

    described = metadata["input"]
    frames, side = int(described["num_frames"]), int(described["crop"])
    taken = network.input
    fixed: dict[str, str] = {}
    if taken.num_frames is not None:
        fixed["frames"] = f"the network takes clips of exactly {taken.num_frames} frames"
    if taken.side is not None:
        fixed["height and width"] = f"the network takes clips of exactly {taken.side} × {taken.side} px"
    length = [] if taken.num_frames is not None else [2]
    size = [] if taken.side is not None else [3, 4]
    problem = ""
    with atomic_path(path) as temporary:
        # The most first; with the batch alone at last.
        for axes in dict.fromkeys([(0, *length, *size), (0, *length), (0, *size), (0,)]):
            reason = problem
            difference, problem = _tried(network, frames, side, axes, temporary)
            if problem:
                continue
            if length and 2 not in axes:
                fixed["frames"] = f"with other lengths {reason}"
            if size and 3 not in axes:
                fixed["height and width"] = f"with other sizes {reason}"
            return difference, fixed
        raise UserError(f"{path} is not written: {problem}")


def _tried(network: Any, frames: int, side: int, axes: Sequence[int], path: Path) -> tuple[float, str]:
    """Export with these axes free and compare with torch: the largest relative difference, and what is wrong, if it is.

    The clips differ from the exported one in every free axis, to odd lengths and to sides that no stride divides.
    """
    import logging
    import warnings

    import onnxruntime
    import torch

    from pipeline_lib.models.exporting import traceable

    base = (2, network.input.channels, frames, side, side)
    longer = (1, base[1], frames + 3, side + 17, side + 8)
    other = (3, base[1], frames // 2 + 1 if frames >= 16 else 2 * frames, side, side + 25)
    shapes = [base, *(tuple(new[a] if a in axes else base[a] for a in range(5)) for new in (longer, other))]
    generator = torch.Generator().manual_seed(0)
    clips = [torch.rand(*shape, generator=generator) * 2 - 1 for shape in shapes]
    names: dict[str, Any] = {"input_names": ["clip"], "output_names": ["logits"], "verbose": False}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = [network(clip) for clip in clips]
            if list(axes) == [0]:
                # The newer exporter keeps whatever the network decides by the shape, which does not change here.
                batch = {"clip_BCTHW": {0: torch.export.Dim("batch")}}
                torch.onnx.export(
                    network, (clips[0],), path, **names, dynamic_shapes=batch, external_data=False, dynamo=True
                )
            else:
                free = {"clip": {axis: AXES[axis] for axis in axes}, "logits": {0: "batch"}}
                # It prints the whole graph where it fails.
                logging.getLogger("torch.onnx").setLevel(logging.CRITICAL)
                with contextlib.redirect_stdout(io.StringIO()), traceable(network):
                    torch.onnx.export(
                        network, (clips[0],), str(path), **names, dynamic_axes=free, dynamo=False, opset_version=17
                    )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(session.run(["logits"], {"clip": clip.numpy()})[0]) for clip in clips]
    # Exporter and runtime raise many kinds of errors at what they cannot express.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        if list(axes) == [0]:
            return 0.0, f"ONNX cannot express it ({type(error).__name__}: {lines[0]:.200})"
        return 0.0, f"ONNX cannot express it ({type(error).__name__})"
    pairs = zip(found, expected, strict=True)
    difference = max(float((one - two).abs().max() / two.abs().max().clamp_min(1e-6)) for one, two in pairs)
    if not difference < TOLERANCE:
        return difference, f"onnxruntime's logits differ from torch's by {difference:.1e} of the largest"
    return difference, ""


def _card(
    options: argparse.Namespace, metadata: dict[str, Any], fixed: Mapping[str, str] | None, short_side: int
) -> str:
    """The card in Markdown: what the network is, how to load it, what it takes, how it was trained, what it reached.

    Args:
        options: of the command.
        metadata: of the weights.
        fixed: axes of the ONNX file that are fixed, with the reasons; None without ONNX.
        short_side: of the frames as the training saw them, pixels.
    """
    import json

    specification, described = metadata["specification"], metadata["input"]
    flow = described["modality"] == "flow"
    channels = "u and v of the flow" if flow else "R, G and B"
    value = (
        f"displacement in pixels, clipped to ±{described.get('motion_bound')}, divided by that bound"
        if flow
        else "pixel / 127.5 − 1"
    )
    lines = [
        f"# {options.experiment}",
        "",
        f"- Network: `{specification['model']['name']}`, options `{json.dumps(specification['model']['options'])}`",
        f"- Data: {_data(specification, metadata)}",
        f"- Training: split {options.split}, seed {options.seed}, stage `{specification['stage']}`, objective "
        f"`{specification['objective']['name']}`, started from `{specification['start']}`",
        f"- Teacher: {_teacher(specification)}",
        f"- Library {metadata['provenance'].get('library')}, code `{str(metadata['provenance'].get('code'))[:16]}`",
        "",
        "## Use",
        "",
        *_use(metadata, fixed, short_side),
        "",
        "## Input",
        "",
        f"Tensor (B, {2 if flow else 3}, {described['num_frames']}, {described['crop']}, {described['crop']}), "
        f"float32 in [-1, 1]: {channels}; value = {value}.",
        f"{_frames_taken(described)}; {_resized(described, specification['recipe']['sampling'].get('area'))}",
        "",
        "## Metrics",
        "",
        *_metric_lines(options),
        "",
        "## Classes",
        "",
        *(f"{index}. {name}" for index, name in enumerate(metadata["classes"])),
        "",
        "## Recipe",
        "",
        "```json",
        json.dumps(specification["recipe"], indent=2, sort_keys=True),
        "```",
        "",
    ]
    return "\n".join(lines)


def _data(specification: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """What the network was trained on, in words, with the digest of the manifest."""
    share = float(specification.get("train_share", 1.0))
    part = "" if share == 1.0 else f", {100 * share:g} % of each class's training videos"
    beside = metadata["provenance"].get("beside") or {}
    manifest = next((value for key, value in beside.items() if key.startswith("manifests/")), None)
    digest = "" if manifest is None else f", manifest `{manifest[:16]}`"
    return f"`{specification['dataset']}`, {len(metadata['classes'])} classes{part}{digest}"


def _teacher(specification: Mapping[str, Any]) -> str:
    """Whom the network learnt from, in words."""
    teacher = specification.get("teacher")
    if not teacher:
        return "none"
    sees = f"{teacher['modality']}" + (f" of `{teacher['motion']}`" if teacher.get("motion") else "")
    weight = specification["objective"].get("weight")
    by = "" if weight is None else f", its loss weighted by {weight:g}"
    return (
        f"`{teacher['experiment']}` (`{teacher['model']['name']}`, sees {sees}, trained on `{teacher['dataset']}`){by}"
    )


def _use(metadata: Mapping[str, Any], fixed: Mapping[str, str] | None, short_side: int) -> list[str]:
    """Code that loads the files beside the card."""
    described = metadata["input"]
    channels = 2 if described["modality"] == "flow" else 3
    shape = (1, channels, described["num_frames"], described["crop"], described["crop"])
    lines = [
        "With this library, from a video or its frames (uint8 (T, H, W, 3)); clips are made as in training:",
        "",
        "```python",
        "from pipeline_lib import load",
        "",
        f'network = load("model.safetensors", short_side={short_side})',
        'print(network.predict("video.mp4").top(3))',
        "```",
    ]
    if fixed is None:
        return lines
    reasons = "; ".join(f"{axis} are fixed: {reason}" for axis, reason in fixed.items())
    return [
        *lines,
        "",
        "Without it, from clips in the range and layout below. The batch is free; "
        + (f"{reasons}." if fixed else "so are frames, height and width."),
        "",
        "```python",
        "import numpy",
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        f'clip = numpy.zeros({shape}, "float32")  # (B, C, T, H, W)',
        'print(session.run(["logits"], {"clip": clip})[0].shape)',
        "```",
    ]


def _frames_taken(described: Mapping[str, Any]) -> str:
    """Which frames a clip holds, in words."""
    count = described["num_frames"]
    if described.get("spacing") == "segments":
        return f"{count} frames: the middle ones of as many equal segments of the whole video"
    rate = described.get("frames_per_second")
    unit = "" if rate is None else f" in units of 1/{rate:g} second"
    ends = {"clamp": "its last frame again", "pad": "zeros"}
    beyond = ends.get(described.get("past_end", "loop"), "the video again from its start")
    return f"{count} frames, {described['stride']} apart{unit}; where the video has ended: {beyond}"


def _resized(described: Mapping[str, Any], area: Sequence[float] | None) -> str:
    """How a frame becomes a crop, in words."""
    resize, short_side = described.get("resize"), described["short_side"]
    if resize is not None:
        evaluated = f"{resize[0]} × {resize[1]} px (height × width, aspect not kept)"
        trained = evaluated
    else:
        evaluated = f"a short side of {short_side[0]} px"
        trained = f"a short side of {short_side[0]}–{short_side[1]} px for training"
    if area:
        return (
            f"{100 * area[0]:g}–{100 * area[1]:g} % of a frame cut out and resized for training; evaluated on crops of "
            f"frames resized to {evaluated}."
        )
    return f"frames resized to {trained}, then cropped."


def _metric_lines(options: argparse.Namespace) -> list[str]:

    from pipeline_lib.artefacts.layout import Layout

    lines: list[str] = []
    for path in Layout(options.root).evaluated(options.experiment, str(options.split), str(options.seed)):
        record = parse_json(path.read_text(encoding="utf-8"))
        figures = {k: v for k, v in record.get("metrics", {}).items() if isinstance(v, int | float)}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        lines.append(f"- `{path.parent.name}` ({record.get('num_videos', '?')} videos): {shown}")
    return lines or ["Not evaluated yet."]

"""``export``: a trained network for use elsewhere, as safetensors with a card, and as ONNX checked against torch."""

import argparse
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
    from pipeline_lib.evaluation.prediction import find_weights
    from pipeline_lib.training.networks import load_network
    from pipeline_lib.training.weights import save_weights

    layout = Layout(options.root)
    place = (options.experiment, str(options.split), str(options.seed))
    weights = find_weights(layout, options.experiment, options.split, options.seed)
    network, metadata = load_network(weights)
    out: Path = options.out or layout.export(*place)
    save_weights(out / "model.safetensors", network.state_dict(), metadata)
    write_bytes(out / "README.md", _card(options, metadata).encode())
    written = "model.safetensors, README.md"
    if not options.no_onnx:
        difference = _export_onnx(network, metadata, out / "model.onnx")
        written += f", model.onnx (largest difference from torch {difference:.1e} of the largest logit)"
    print(f"{out}: {written}")
    return 0


def _export_onnx(network: Any, metadata: dict[str, Any], path: Path) -> float:
    """Write ONNX with a free batch size; return its largest relative difference from torch.

    Raises:
        UserError: the ``export`` extra is not installed, or onnxruntime computes something else.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs onnx, onnxscript and onnxruntime ({error}): pip install 'pipeline_lib[export]', or --no-onnx"
        ) from error
    import torch

    from pipeline_lib.artefacts.atomic import atomic_path

    described = metadata["input"]
    frames, side = int(described["num_frames"]), int(described["crop"])
    generator = torch.Generator().manual_seed(0)
    clip = torch.rand(2, network.input.channels, frames, side, side, generator=generator) * 2 - 1
    with atomic_path(path) as temporary:
        with torch.no_grad():
            torch.onnx.export(
                network,
                (clip,),
                temporary,
                input_names=["clip"],
                output_names=["logits"],
                dynamic_shapes={"clip_BCTHW": {0: torch.export.Dim("batch")}},
                external_data=False,
                dynamo=True,
                verbose=False,
            )
            expected = network(clip[:1])
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(["logits"], {"clip": clip[:1].numpy()})[0])
        difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
        if not difference < TOLERANCE:
            raise UserError(
                f"onnxruntime's logits differ from torch's by {difference:.1e} of the largest; {path} is not written"
            )
    return difference


def _card(options: argparse.Namespace, metadata: dict[str, Any]) -> str:
    """The card in Markdown: what the network is, what it takes, how it was trained, what it reached."""
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
        f"- Trained on: {specification['dataset']}, split {options.split}, seed {options.seed}, "
        f"stage `{specification['stage']}`, objective `{specification['objective']['name']}`",
        f"- Library {metadata['provenance'].get('library')}, code `{str(metadata['provenance'].get('code'))[:16]}`",
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

"""From uint8 batches to a network's input: move to the device, flip, normalise."""

import torch

from pipeline_lib.clips.augmentations import Mixture, erase, mix
from pipeline_lib.clips.colours import change_colours

CHANNELS = {"rgb": 3, "flow": 2}
"""Input channels of each modality."""


def normalise_rgb(clip: torch.Tensor) -> torch.Tensor:
    """uint8 (B, T, H, W, 3) → float32 (B, 3, T, H, W) in [-1, 1], stored channels last.

    The range is that of the released D3D and I3D graphs (princeton-vl/d3dhelper).
    """
    return clip.permute(0, 4, 1, 2, 3).to(torch.float32).mul_(1 / 127.5).sub_(1.0)


def normalise_flow(clip: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """uint8 (B, T, H, W, 2) → float32 (B, 2, T, H, W) in [-1, 1], stored channels last; 128 gives exactly 0.

    Args:
        clip: quantised motion, q = round(127 · clip(value / bound, −1, 1)) + 128.
        scale: float32 (B, 2), factors of u and v after a resize; longer displacements than the bound are clipped.
    """
    flow = clip.permute(0, 4, 1, 2, 3).to(torch.float32).sub_(128.0).mul_(1 / 127.0)
    if scale is not None:
        flow.mul_(scale.view(-1, 2, 1, 1, 1)).clamp_(-1.0, 1.0)
    return flow


def normalise_motion(clip: torch.Tensor, zero: int, scale: int) -> torch.Tensor:
    """uint8 (B, T, H, W, C) of any motion kind → float32 (B, C, T, H, W), value / bound.

    Args:
        clip: quantised motion other than flow, whose values a resize does not change.
        zero: the byte of the value 0.
        scale: bytes from there to the bound.
    """
    values = clip.permute(0, 4, 1, 2, 3).to(torch.float32)
    return values.sub_(float(zero)).mul_(1 / scale).clamp_(-1.0 if zero else 0.0, 1.0)


def flip_clips(clip: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Mirror the clips (B, C, T, H, W) whose ``flip`` (B,) is set."""
    return torch.where(flip.view(-1, 1, 1, 1, 1), clip.flip(-1), clip)


def blank(clip: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """Zero the frames of the clips (B, C, T, H, W) where ``padding`` (B, T) is set.

    This is done to the network's input, because no byte stands for zero there: normalised RGB has its zero at 127.5.
    """
    return clip.masked_fill_(padding.view(len(padding), 1, -1, 1, 1), 0.0)


def to_network_input(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Move a loader's batch to the device and make it a network's input.

    Args:
        batch: as from ``ClipReader.read``.
        device: where to.

    Returns:
        ``rgb`` (B, 3, T, H, W) and ``flow`` (B, 2, T, H, W; other motion kinds have one channel), float32 in [-1, 1],
        ``channels_last_3d``, mirrored and u negated where ``flip`` is set (for flow ``flow_flip``, if there is one);
        frames beyond the end of a video are exactly 0 with ``past_end: pad`` (mid-grey, no motion);
        erased rectangles are 0; clips are mixed as ``mixing`` says. ``labels``, ``videos`` and ``samples`` as they are;
        of mixed clips also ``other_labels`` (B,) and ``share`` (), λ of ``labels``.
    """
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    erased, mixing, partners = (moved.pop(name, None) for name in ("erased", "mixing", "partners"))
    flip = moved.pop("flip")
    any_flip = bool(batch["flip"].any())
    scale = moved.pop("flow_scale", None)
    moved.pop("flow_stored", None)
    flow_flip = moved.pop("flow_flip", flip)
    any_flow_flip = bool(batch.get("flow_flip", batch["flip"]).any())
    colours = moved.pop("colours", None)
    paddings = {name: moved.pop(f"{name}_padding", None) for name in CHANNELS}
    if "rgb" in moved:
        if colours is not None:
            moved["rgb"] = change_colours(moved["rgb"], batch["colours"])
        clip = normalise_rgb(moved["rgb"])
        moved["rgb"] = flip_clips(clip, flip) if any_flip else clip
    if "flow" in moved:
        assert scale is not None
        is_flow = "flow_stored" not in batch
        if is_flow:
            clip = normalise_flow(moved["flow"], scale)
        else:
            clip = normalise_motion(moved["flow"], *batch["flow_stored"].tolist())
        if any_flow_flip:
            clip = flip_clips(clip, flow_flip)
            if is_flow:
                clip[:, 0] *= torch.where(flow_flip, -1.0, 1.0).view(-1, 1, 1, 1)
        moved["flow"] = clip
    for name, padding in paddings.items():
        if padding is not None:
            moved[name] = blank(moved[name], padding)
    for name in CHANNELS.keys() & moved.keys():
        if erased is not None:
            moved[name] = erase(moved[name], batch["erased"].tolist())
        if partners is not None:
            moved[name] = mix(moved[name], partners, _mixture(batch["mixing"]))
    if mixing is not None and partners is not None:
        moved["other_labels"] = moved["labels"][partners]
        moved["share"] = mixing[0].to(torch.float32)
        for name in ("labels", "videos", "samples"):
            moved[name] = moved[name][: len(partners)]
    return moved


def _mixture(values: torch.Tensor) -> Mixture:
    share, left, top, right, bottom = values.tolist()
    # MixUp has no box, which a batch holds as −1.
    return Mixture(share, None if right < 0 else (int(left), int(top), int(right), int(bottom)))

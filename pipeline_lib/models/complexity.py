"""Parameters and multiply-adds of every network, beside the papers' figures."""

import importlib
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline_lib.models import catalogue
from pipeline_lib.models.network import VideoNetwork

Counting = Literal["all", "weights"]


@dataclass(frozen=True)
class Count:
    """Size and cost of one network on one clip.

    Attributes:
        parameters: trainable parameters; with ``weights`` counting only kernels and matrices.
        gmacs: multiply-adds of one forward pass, in 10⁹, convolutions, matrices and attention only.
        shape: (C, T, H, W) of the clip.
    """

    parameters: int
    gmacs: float
    shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: name in the catalogue.
        num_frames: frames of the clip.
        side: height and width of the clip, in pixels.
        options: options beyond the name's.
        in_channels: channels of a frame.
        counting: what the published figure counts.
        paper: ``parameters_m`` (10⁶), ``parameters``, ``gmacs``: the published figures.
        source: paper and table of these figures.
        note: what a reader must know about the comparison.
    """

    name: str
    num_frames: int
    side: int
    options: dict[str, Any] = field(default_factory=dict)
    in_channels: int = 3
    counting: Counting = "all"
    paper: dict[str, float] = field(default_factory=dict)
    source: str = ""
    note: str = ""


_VISION = "torchvision"
_NOT_REPRODUCED = "no variant known to us gives the paper's figures exactly"
_RELEASED = "TF-slim's released network, which D3D used; the paper's is"
_TRAN = "R(2+1)D, Table 2"
# Parameters in 10⁶. The paper prints one figure for clips of 8 and of 16 frames; R2D's stem fits 8.
_TABLE_2: dict[str, float] = {
    "r2d_18": 11.4,
    "f_r2d_18": 11.4,
    "r3d_18": 33.4,
    "mc2_18": 11.4,
    "mc3_18": 11.7,
    "mc4_18": 12.7,
    "mc5_18": 16.9,
    "rmc2_18": 33.3,
    "rmc3_18": 33.0,
    "rmc4_18": 32.0,
    "rmc5_18": 27.9,
    "r2plus1d_18": 33.3,
}
_S3D: dict[str, float] = {"parameters_m": 8.77, "gmacs": 66.38}
_S3DG: dict[str, float] = {"parameters_m": 11.56, "gmacs": 71.38}
_XIE = "S3D-G, Table 2"
_COMPARED: tuple[Row, ...] = (
    Row("torchvision/s3d", 16, 224, paper={"parameters": 8_320_048, "gmacs": 17.979}, source=_VISION),
    # torchvision's 40.697 counts its r3d_18 at 16×112².
    Row("torchvision/r3d_18", 16, 112, paper={"parameters": 33_371_472, "gmacs": 40.697}, source=_VISION),
    Row("torchvision/mc3_18", 16, 112, paper={"parameters": 11_695_440, "gmacs": 43.343}, source=_VISION),
    Row("torchvision/r2plus1d_18", 16, 112, paper={"parameters": 31_505_325, "gmacs": 40.519}, source=_VISION),
    Row("torchvision/mvit_v2_s", 16, 224, paper={"parameters": 34_537_744, "gmacs": 64.224}, source=_VISION),
    Row("torchvision/swin3d_t", 16, 224, paper={"parameters": 28_158_070, "gmacs": 43.882}, source=_VISION),
    Row(
        "i3d",
        64,
        224,
        options={"branch_2_kernel": 1},
        counting="weights",
        paper={"parameters_m": 12.06, "gmacs": 107.89},
        source=_XIE,
        note="the paper counted a 1×1×1 second convolution in branch 2 and no normalisation",
    ),
    Row(
        "i3d",
        64,
        224,
        paper={"parameters_m": 12.06, "gmacs": 107.89},
        source=_XIE,
        note="the network as DeepMind published it, which is trained here",
    ),
    Row("i2d", 64, 224),
    Row("s3d_paper", 64, 224, paper=_S3D, source=_XIE, note=_NOT_REPRODUCED),
    Row(
        "s3d_paper",
        64,
        224,
        options={"temporal_branches": 2},
        paper=_S3D,
        source=_XIE,
        note=f"before footnote 5; {_NOT_REPRODUCED}",
    ),
    Row("s3d_slim", 64, 224, paper=_S3D, source=_XIE, note=f"{_RELEASED} s3d_paper; {_NOT_REPRODUCED}"),
    Row("s3dg_paper", 64, 224, paper=_S3DG, source=_XIE, note=_NOT_REPRODUCED),
    Row("s3dg_slim", 64, 224, paper=_S3DG, source=_XIE, note=f"{_RELEASED} s3dg_paper; {_NOT_REPRODUCED}"),
    Row("nl_s3dg", 64, 224),
    Row("fast_s3d", 64, 224, paper={"gmacs": 43.47}, source="S3D-G, section 4.4", note=_NOT_REPRODUCED),
    *(
        Row(
            name,
            8,
            112,
            counting="weights",
            paper={"parameters_m": millions},
            source=_TRAN,
            note="the nearest count known to us, 0.05 M below" if name == "mc5_18" else "",
        )
        for name, millions in _TABLE_2.items()
    ),
)


def rows() -> list[Row]:
    """Every row of the table: first the comparisons, then every other network at its family's usual input."""
    table = list(_COMPARED)
    shown = {row.name for row in table}
    for name in catalogue.names():
        if name in shown:
            continue
        module, _ = catalogue.resolve(name)
        if module == catalogue.INCEPTION:
            table.append(Row(name, 64, 224))
        elif module == catalogue.RESNET:
            table.append(Row(name, 8 if name.startswith("r2d") else 16, 112))
        else:
            frames = 16 if "motion" in name else 8
            table.append(Row(name, frames, 224, in_channels=3))
    return table


def count(
    name: str,
    num_frames: int,
    side: int,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    counting: Counting = "all",
    options: dict[str, Any] | None = None,
) -> Count:
    """Count one network, without data: on torch's meta device, with torch's own FLOP counter.

    Args:
        name: name in the catalogue.
        num_frames: frames of the clip.
        side: height and width of the clip, in pixels.
        num_classes: width of the logits.
        in_channels: channels of a frame.
        counting: ``weights`` leaves out biases and normalisations, as the papers did.
        options: options beyond the name's.

    Raises:
        UserError: there is no such network, or it does not take such a clip.
    """
    module, defaults = catalogue.resolve(name)
    with torch.device("meta"), torch.no_grad():
        network: VideoNetwork = importlib.import_module(module).build(
            num_classes, in_channels, **{**defaults, **(options or {})}
        )
        clip = torch.empty(1, in_channels, num_frames, side, side)
        with FlopCounterMode(display=False) as counter:
            network.eval()(clip)
    least = 2 if counting == "weights" else 0
    parameters = sum(p.numel() for p in network.parameters() if p.dim() >= least)
    # The counter counts a multiply and an add as two.
    return Count(parameters, counter.get_total_flops() / 2e9, (in_channels, num_frames, side, side))


def describe(row: Row) -> dict[str, Any]:
    """A row as plain data: ``name``, ``input``, ``parameters``, ``gmacs``, the paper's figures, the differences."""
    found = count(
        row.name,
        row.num_frames,
        row.side,
        in_channels=row.in_channels,
        counting=row.counting,
        options=row.options,
    )
    ours = {"parameters": found.parameters, "parameters_m": found.parameters / 1e6, "gmacs": found.gmacs}
    return {
        "name": row.name,
        "options": row.options,
        "input": "×".join(map(str, found.shape)),
        "parameters": found.parameters,
        "gmacs": round(found.gmacs, 3),
        "counting": row.counting,
        "paper": row.paper,
        "difference": {key: round(ours[key] - value, 4) for key, value in row.paper.items()},
        "source": row.source,
        "note": row.note,
    }

"""The motion methods, each declared once: where it is computed, what it stores, and its parameters.

A specification holds every parameter with its value, so that a changed default computes anew what it concerns.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipeline_lib.configuration.base import Section
from pipeline_lib.configuration.messages import problem_of


class MotionParameters(Section):
    """Parameters of a motion method; each method adds its own."""

    @classmethod
    def complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values with the defaults of those that are left out.

        Raises:
            ValidationError: an unknown key, or a value of another type or out of its range.
        """
        return cls.model_validate_json(json.dumps(values), strict=True).model_dump(by_alias=True)

    @property
    def sources(self) -> Sequence[str]:
        """The methods whose flow this one is computed from."""
        return ()


class TVL1Parameters(MotionParameters):
    """Defaults are those of ``cv2.optflow.DualTVL1OpticalFlow`` (opencv_contrib, modules/optflow/src/tvl1flow.cpp).

    Zach, Pock and Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007; the algorithm as
    stated step by step: Sánchez Pérez, Meinhardt-Llopis and Facciolo, "TV-L1 Optical Flow Estimation", IPOL 2013.
    """

    model_config = ConfigDict(populate_by_name=True)

    mode: Literal["fixed", "opencv", "library"] = "fixed"
    """``fixed``: ``iterations`` a warp, no stop test. ``opencv``: OpenCV's stop rule, pair by pair. ``library``:
    OpenCV's own code, the slow reference."""
    tau: float = Field(default=0.25, gt=0)
    """Time step of the dual update."""
    lambda_: float = Field(default=0.15, gt=0, alias="lambda")
    """Weight of the data term: smaller is smoother."""
    theta: float = Field(default=0.3, gt=0)
    """Tightness of the coupling of u and v."""
    num_scales: int = Field(default=5, ge=1)
    scale_step: float = Field(default=0.8, gt=0.1, lt=1)
    num_warps: int = Field(default=5, ge=1)
    epsilon: float = Field(default=0.01, ge=0)
    """``opencv`` stops when the squared update, summed over the level, is at most ε² per pixel."""
    outer_iterations: int = Field(default=10, ge=1)
    inner_iterations: int = Field(default=30, ge=1)
    iterations: int = Field(default=60, ge=1)
    """Iterations a warp in ``fixed`` mode. With 30, slow motion agrees with OpenCV as well, but on large motion the
    error against ground truth is 7 % above OpenCV's (docs/flow.md); with 60 it is not."""
    median_size: Literal[1, 5] = 5
    """Side of the median filter on u: at the start of each outer pass (``opencv``) or of each warp (``fixed``)."""


class FarnebackParameters(MotionParameters):
    """Parameters of ``cv2.calcOpticalFlowFarneback``; defaults as in R(2+1)D's code."""

    pyramid_scale: float = Field(default=math.sqrt(2) / 2, gt=0, lt=1)
    num_levels: int = Field(default=5, ge=1)
    window: int = Field(default=10, ge=1)
    """Side of the averaging window, pixels."""
    num_iterations: int = Field(default=2, ge=1)
    polynomial_size: int = Field(default=7, ge=3)
    polynomial_sigma: float = Field(default=1.5, gt=0)
    gaussian_window: bool = True


class RAFTParameters(MotionParameters):
    """Parameters of the method ``raft``."""

    model: Literal["large", "small"] = "large"
    weights: str = "C_T_V2"
    """A name of torchvision's (``C_T_V1``, ``C_T_V2`` … in torch's hub cache), or a file: a torchvision state
    dictionary or princeton-vl's raft-things.pth and raft-small.pth. C_T: FlyingChairs and FlyingThings3D alone."""
    sha256: str | None = None
    """Digest that the file must have; null accepts torchvision's format and princeton-vl's published files."""
    iterations: int = Field(default=12, ge=1)
    """Updates of the flow; 12 is torchvision's default and the number that RAFT is trained with."""
    autocast: Literal["float16", "bfloat16", "float32"] = "float16"
    """Type of the encoders and the update block on a GPU."""
    autocast_cpu: Literal["bfloat16", "float32"] = "float32"
    """The same on a CPU. bfloat16 is faster only on a processor that computes in it (AVX512-BF16, AMX), and gives other
    bytes on other processors; the end-point error to float32 was 0.02 px on FlyingChairs."""
    compile: bool = False
    """Compile the encoders and the update block (torch.compile). This takes minutes once and is meant for a GPU; a CPU
    needs a C++ compiler."""


class FlowEdgesParameters(MotionParameters):
    """Parameters of the method ``flow_edges``."""

    source: Literal["raft", "tvl1", "farneback"] = "raft"
    """The flow method."""
    source_parameters: dict[str, Any] = Field(default={}, validate_default=True)
    """Its parameters."""

    @field_validator("source_parameters")
    @classmethod
    def _complete(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "source" not in info.data:
            return value
        model = METHODS[info.data["source"]].parameters
        try:
            return model.complete(value)
        except ValidationError as error:
            key, problem = problem_of(error.errors(include_url=False)[0], model, value)  # type: ignore[arg-type]
            raise ValueError(f"{'.'.join(key)}: {problem.rstrip('.')}") from None

    @property
    def sources(self) -> Sequence[str]:
        """The flow method."""
        return (self.source,)


class FrameDifferenceParameters(MotionParameters):
    """The method has no parameters."""


class PrecomputedParameters(MotionParameters):
    """Flow that lies beside the frames of a data set of folders, as 8-bit images (denseflow, MMAction2, TSN)."""

    written_bound: float = Field(gt=0)
    """The bound (pixels) that the images were written with: bytes 0 … 255 stand for −bound … bound. denseflow: 20."""
    count: Literal["pairs", "frames"] = "pairs"
    """How many flow images a video has: one for each pair of frames (N − gap of N frames, as denseflow writes them),
    or one for each frame (N)."""


class MethodKind(NamedTuple):
    """A motion method."""

    module: str
    """It has ``create(kind, device, num_threads) -> MotionMethod``; only the motion stage imports it."""
    parameters: type[MotionParameters]
    channels: tuple[str, ...] = ("u", "v")
    """Names of what is stored of each frame; flow has u and v."""
    uses_gpu: bool = False
    """Whether it is faster on a GPU."""
    pairs_per_core: float = 1.0
    """Pairs of 340×256 per second and core, measured on a server processor (``raft``: the large network)."""
    reads_files: bool = False
    """Whether it is read from files beside the frames; nothing computes it from a video."""

    @property
    def is_flow(self) -> bool:
        """Whether it is a displacement."""
        return self.channels == ("u", "v")


METHODS: dict[str, MethodKind] = {
    "tvl1": MethodKind("pipeline_lib.flow.tvl1.method", TVL1Parameters, uses_gpu=True, pairs_per_core=6.4),
    "farneback": MethodKind("pipeline_lib.flow.farneback", FarnebackParameters, pairs_per_core=60.0),
    "raft": MethodKind("pipeline_lib.flow.raft.method", RAFTParameters, uses_gpu=True, pairs_per_core=1.5),
    # As slow as the flow that the edges are computed from.
    "flow_edges": MethodKind(
        "pipeline_lib.flow.flow_edges", FlowEdgesParameters, ("edges",), uses_gpu=True, pairs_per_core=math.inf
    ),
    "frame_difference": MethodKind(
        "pipeline_lib.flow.frame_difference", FrameDifferenceParameters, ("difference",), pairs_per_core=900.0
    ),
    "precomputed": MethodKind(
        "pipeline_lib.flow.precomputed", PrecomputedParameters, pairs_per_core=270.0, reads_files=True
    ),
}

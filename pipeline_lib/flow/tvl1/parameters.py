"""Parameters of TV-L1 and the sizes of its pyramid, for every implementation here."""

from typing import Literal

from pydantic import ConfigDict, Field

from pipeline_lib.configuration.base import Section

MINIMUM_SIDE = 16
"""OpenCV makes no pyramid level with a side below this; smaller frames are refused."""

FLT_EPSILON = 1.1920929e-07
"""A smaller gradient has no data term (``std::numeric_limits<float>::epsilon()`` in OpenCV's tvl1flow.cpp)."""

CUBIC_A = -0.75
"""The free parameter of OpenCV's cubic kernel. OpenCV 5 samples float images at exact coordinates; OpenCV 4 rounded
them to 1/32 px, which moves its flow by some 0.02 px."""


class TVL1Parameters(Section):
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


def level_sizes(height: int, width: int, parameters: TVL1Parameters) -> list[tuple[int, int]]:
    """(H, W) of the pyramid's levels, the finest first, as ``cv::resize(src, dst, Size(), 0.8, 0.8)`` rounds them.

    Raises:
        ValueError: a side is below ``MINIMUM_SIDE``.
    """
    if min(height, width) < MINIMUM_SIDE:
        raise ValueError(f"frames of {width}×{height} px; TV-L1 needs at least {MINIMUM_SIDE} px a side")
    sizes = [(height, width)]
    while len(sizes) < parameters.num_scales:
        # Python's round is half to even, as OpenCV's saturate_cast<int> is.
        height, width = round(height * parameters.scale_step), round(width * parameters.scale_step)
        if min(height, width) < MINIMUM_SIDE:
            break
        sizes.append((height, width))
    return sizes

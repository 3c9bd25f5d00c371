"""Parameters of TV-L1 and the sizes of its pyramid, for every implementation here."""

from pipeline_lib.configuration.motions import TVL1Parameters

MINIMUM_SIDE = 16
"""OpenCV makes no pyramid level with a side below this; smaller frames are refused."""

FLT_EPSILON = 1.1920929e-07
"""A smaller gradient has no data term (``std::numeric_limits<float>::epsilon()`` in OpenCV's tvl1flow.cpp)."""

CUBIC_A = -0.75
"""The free parameter of OpenCV's cubic kernel. OpenCV 5 samples float images at exact coordinates; OpenCV 4 rounded
them to 1/32 px, which moves its flow by some 0.02 px."""


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

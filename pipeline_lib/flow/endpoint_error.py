"""The end-point error between two flow fields: the distance between the points to which they send a pixel."""

import numpy as np


def endpoint_error(flow: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Euclidean distance per pixel.

    Args:
        flow: (…, 2, H, W), pixels.
        reference: the same shape.

    Returns:
        float32 (…, H, W), pixels, ≥ 0.

    Raises:
        ValueError: the shapes differ, or the second last axes are not two components.
    """
    if flow.shape != reference.shape or flow.shape[-3] != 2:
        raise ValueError(f"flow of shapes {flow.shape} and {reference.shape} cannot be compared")
    difference = flow.astype(np.float32) - reference.astype(np.float32)
    return np.hypot(difference[..., 0, :, :], difference[..., 1, :, :])


def summarise(flow: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Mean, median and 99th percentile of the end-point error in pixels, and the share of pixels within 0.1 px.

    ``reference_magnitude`` is the mean length of the reference's vectors, to compare an error with.
    """
    error = endpoint_error(flow, reference)
    return {
        "mean": float(error.mean()),
        "median": float(np.median(error)),
        "p99": float(np.percentile(error, 99)),
        "share_within_0.1": float((error <= 0.1).mean()),
        "reference_magnitude": float(np.hypot(reference[..., 0, :, :], reference[..., 1, :, :]).mean()),
    }

"""Colouring and comparing flow fields."""

import numpy as np
import pytest

from pipeline_lib.flow.colour import colour_wheel, flow_to_rgb
from pipeline_lib.flow.endpoint_error import endpoint_error, summarise


def test_endpoint_error_closed_form() -> None:
    reference = np.zeros((2, 2, 2), np.float32)
    flow = np.zeros((2, 2, 2), np.float32)
    flow[:, 0, 0] = 3, 4
    assert endpoint_error(flow, reference).tolist() == [[5, 0], [0, 0]]
    assert summarise(flow, reference)["mean"] == 1.25
    assert summarise(flow, reference)["share_within_0.1"] == 0.75
    with pytest.raises(ValueError, match="cannot be compared"):
        endpoint_error(flow, flow[:, :1])


def test_colours_tell_directions_apart() -> None:
    flow = np.zeros((2, 1, 5), np.float32)
    flow[:, 0] = [[10, -10, 0, 0, 0], [0, 0, 10, -10, 0]]
    right, left, down, up, still = flow_to_rgb(flow, 10.0)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert right[0] == 255 and right[1] < 10  # red, as in Middlebury's colour code
    assert left[2] > 200 and left[0] < 30  # cyan to blue
    assert down[0] > 200 and down[1] > 150 and down[2] < 30  # yellow
    assert up[2] > 200 and up[0] > 60 and up[1] < 30  # violet
    assert len(colour_wheel()) == 55


def test_beyond_the_maximum_is_darkened() -> None:
    flow = np.array([[[5.0, 20.0]], [[0.0, 0.0]]], np.float32)
    at_most, beyond = flow_to_rgb(flow, 5.0)[0].astype(int)
    assert beyond[0] < at_most[0]

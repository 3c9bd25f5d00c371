"""Motion as bytes and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.flow.quantisation import (
    Quantisation,
    decode_image,
    encode_image,
    stack_channels,
)
from pipeline_lib.media.motion_frames import padded, unstack_channels

FLOW = Quantisation(("u", "v"), 20.0)


def test_formula_against_its_closed_form() -> None:
    values = torch.tensor([-100.0, -20.0, -10.0, -0.01, 0.0, 0.01, 10.0, 20.0, 100.0])
    assert FLOW.quantise(values).tolist() == [1, 1, 64, 128, 128, 128, 192, 255, 255]
    edges = Quantisation(("edges",), 10.0, zero=0, scale=255, unit="px/px")
    assert edges.quantise(torch.tensor([-1.0, 0.0, 5.0, 10.0, 12.0])).tolist() == [0, 0, 128, 255, 255]
    assert edges.dequantise(np.array([0, 255], dtype=np.uint8)).tolist() == [0.0, 10.0]


@settings(max_examples=50, deadline=None)
@given(st.floats(0.5, 300), st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=50))
def test_error_is_at_most_half_a_step_and_negation_is_exact(bound: float, numbers: list[float]) -> None:
    quantisation = Quantisation(("u", "v"), bound)
    values = torch.tensor(numbers, dtype=torch.float32)
    quantised = quantisation.quantise(values).numpy()
    back = quantisation.dequantise(quantised)
    clipped = np.clip(values.numpy(), -bound, bound)
    assert np.abs(back - clipped).max() <= bound / 254 * 1.001
    negative = quantisation.quantise(-values).numpy()
    assert np.array_equal(negative.astype(int), 256 - quantised.astype(int))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2]), st.integers(1, 100))
def test_zero_motion_decodes_to_exactly_zero(height: int, width: int, channels: int, quality: int) -> None:
    quantisation = Quantisation(("u", "v")[:channels], 20.0)
    values = torch.zeros(1, channels, height, width)
    (image,) = stack_channels(quantisation.quantise(values)).numpy()
    decoded = decode_image(encode_image(image, quality), height)
    assert np.abs(quantisation.dequantise(decoded)).max() == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_channels_do_not_mix(height: int, width: int) -> None:
    generator = np.random.default_rng(height * 41 + width)
    quantised = torch.from_numpy(generator.integers(1, 256, (3, 2, height, width), dtype=np.uint8))
    images = stack_channels(quantised).numpy()
    assert images.shape == (3, 2 * padded(height), width)
    for image, expected in zip(images, quantised.numpy(), strict=True):
        assert np.array_equal(unstack_channels(image, height), expected)
    # A still u under a wild v stays exactly still through JPEG: no block holds both.
    quantised[:, 0] = 128
    jpeg = encode_image(stack_channels(quantised).numpy()[0], 30)
    assert np.array_equal(decode_image(jpeg, height)[0], np.full((height, width), 128))


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        FLOW.quantise(torch.tensor([0.0, float("nan")]))


def test_provenance_round_trip() -> None:
    edges = Quantisation(("edges",), 10.0, zero=0, scale=255, unit="px/px")
    assert Quantisation.from_record({"parameters": {"quantisation": edges.attributes()}}) == edges

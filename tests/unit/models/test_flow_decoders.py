"""Flow decoders: shapes, no temporal reach, learnability, and the polar representation."""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.configuration.objectives import FlowRegression
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import resolve
from pipeline_lib.models.decoders import FlowDecoder, flow_to_polar, polar_to_flow
from pipeline_lib.models.network import VideoNetwork
from pipeline_lib.training.objectives.flow_regression import PREDICTION, DecodedForward, FlowRegressionObjective


def network(name: str = "s3dg_slim") -> VideoNetwork:
    module, options = resolve(name)
    small = {
        "s3dg_slim": {"depth_multiplier": 0.0625, "minimum_depth": 4},
        "r3d_18": {"width": 8},
        "torchvision/swin3d_t": {"depths": [1, 1], "width": 8, "num_heads": [1, 2]},
    }
    found: VideoNetwork = importlib.import_module(module).build(3, 3, **options | small[name])
    return found


@pytest.mark.parametrize("kind", ["simple", "spatial", "pwc"])
@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("s3dg_slim", "MaxPool_3a_3x3"),
        ("s3dg_slim", "Mixed_5c"),
        ("r3d_18", "conv3_x"),
        ("torchvision/swin3d_t", "features.1"),
    ],
)
def test_decoders_attach_anywhere(kind: str, name: str, endpoint: str) -> None:
    predictor = DecodedForward(network(name), FlowRegression(endpoint=endpoint, decoder=kind))  # type: ignore[arg-type]
    outputs = predictor(torch.randn(2, 3, 8, 32, 32), ())
    assert outputs[PREDICTION].shape == (2, 3, *outputs[endpoint].shape[2:])


def test_channels_of_the_decoders_are_the_papers() -> None:
    pwc = FlowDecoder("pwc", 192, dense=False)
    assert [layer.out_channels for layer in (*pwc.hidden, pwc.output)] == [128, 128, 96, 64, 32, 3]
    dense = FlowDecoder("pwc", 192)
    assert [layer.in_channels for layer in (*dense.hidden, dense.output)] == [192, 320, 448, 544, 608, 640]
    spatial = FlowDecoder("spatial", 192)
    assert [layer.out_channels for layer in (*spatial.hidden, spatial.output)] == [192, 192, 3]
    assert spatial.output.kernel_size == (1, 1, 1)
    assert not FlowDecoder("simple", 192).hidden


@pytest.mark.parametrize("kind", ["simple", "spatial", "pwc"])
def test_no_decoder_looks_at_other_frames(kind: str) -> None:
    decoder = FlowDecoder(kind, 6)  # type: ignore[arg-type]
    features = torch.randn(1, 6, 5, 8, 8)
    other = features.clone()
    other[:, :, 2] += 1
    changed = (decoder(features) - decoder(other)).abs().amax((0, 1, 3, 4)) > 0
    assert changed.tolist() == [False, False, True, False, False]


def test_a_decoder_learns_flow_that_its_features_hold() -> None:
    torch.manual_seed(0)
    flow = torch.randn(4, 2, 2, 6, 6)
    target = flow_to_polar(flow)
    decoder = FlowDecoder("pwc", 2)
    optimiser = torch.optim.Adam(decoder.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = (decoder(flow) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@given(u=st.floats(-20, 20), v=st.floats(-20, 20))
@settings(max_examples=50, deadline=None)
def test_polar_flow_is_invertible(u: float, v: float) -> None:
    flow = torch.tensor([u, v], dtype=torch.float64).view(1, 2, 1, 1, 1)
    polar = flow_to_polar(flow)
    assert polar[0, 0].item() == pytest.approx((u * u + v * v) ** 0.5)
    assert torch.allclose(polar_to_flow(polar), flow, atol=1e-9)


def test_polar_parts_are_sine_and_cosine() -> None:
    polar = flow_to_polar(torch.tensor([0.0, 2.0]).view(1, 2, 1, 1, 1)).flatten()
    assert polar.tolist() == [2.0, 1.0, 0.0]
    assert flow_to_polar(torch.zeros(1, 2, 1, 1, 1)).flatten().tolist() == [0.0, 0.0, 0.0]


def test_endpoints_without_a_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="spatial grid"):
        FlowRegression(endpoint="logits")
    with pytest.raises(UserError, match="Mixed_3b"):
        FlowRegressionObjective(FlowRegression(endpoint="Mixed_9z")).attach(network())
    with pytest.raises(UserError, match="none of simple"):
        FlowDecoder("unet", 3)  # type: ignore[arg-type]

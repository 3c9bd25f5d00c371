"""Single layers against closed forms: gates, normalisation, attention, padding, folded convolutions."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import built, small

from pipeline_lib.models.inception3d import MIXED, SpatioTemporalLayer
from pipeline_lib.models.layers import PaddedConv3d, PaddedMaxPool3d, SelfGate, same_padding
from pipeline_lib.training.batch_norm import set_momentum


def test_temporal_convolutions_start_as_the_identity() -> None:
    network = small("s3dg_slim")
    temporal = network.stages["Mixed_3b"].Branch_1.Conv2d_0b_3x3.temporal  # type: ignore[union-attr]
    x = torch.rand(1, temporal.conv.in_channels, 5, 4, 4)
    assert temporal.norm is None
    assert torch.allclose(temporal(x), x)


def test_gates_scale_each_channel_by_one_number() -> None:
    layer = small("s3dg_slim").stages["Conv2d_2c_3x3"]
    gate = layer.gate
    torch.nn.init.normal_(gate.conv.weight)
    x = torch.rand(2, gate.conv.in_channels, 3, 4, 4)
    expected = torch.sigmoid(x.mean((2, 3, 4)) @ gate.conv.weight.flatten(1).T)
    assert torch.allclose(gate(x), x * expected[:, :, None, None, None])
    assert small("s3d_slim").stages["Conv2d_2c_3x3"].gate is None


@pytest.mark.parametrize(("pooling", "axes"), [("space_time", (2, 3, 4)), ("space", (3, 4)), ("time", (2,))])
def test_gates_average_over_space_time_or_both(pooling: str, axes: tuple[int, ...]) -> None:
    """Section 4.6: Y = σ(W pool(X) + b) ⊙ X, computed position by position."""
    gate = SelfGate(3, bias=True, pooling=pooling)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 4, 5, 6)
    mean = x.mean(axes, keepdim=True).expand_as(x)
    scores = torch.einsum("dc,bcthw->bdthw", gate.conv.weight.flatten(1), mean) + gate.conv.bias.view(3, 1, 1, 1)  # type: ignore[union-attr]
    assert torch.allclose(gate(x), x * scores.sigmoid(), atol=1e-6)


def gated_layers(name: str, **options: Any) -> set[str]:
    """The layers, pools and blocks that a gate ends."""
    with torch.device("meta"):
        network = built(name, **options)
    return {
        path.removesuffix(".gate") for path, module in network.stages.named_modules() if isinstance(module, SelfGate)
    }


def test_the_papers_gates_follow_every_temporal_convolution() -> None:
    with torch.device("meta"):
        network = built("s3dg_paper")
    separable = {
        path
        for path, module in network.stages.named_modules()
        if isinstance(module, SpatioTemporalLayer) and module.temporal is not None
    }
    # The stem, Conv2d_2c_3x3, and four branches of nine blocks (footnote 5).
    assert len(separable) == 2 + 4 * 9
    assert gated_layers("s3dg_paper") == separable
    assert all(module.conv.bias is not None for module in network.modules() if isinstance(module, SelfGate))
    # Where time is left out, there is no temporal convolution to gate.
    assert len(gated_layers("s3dg_paper", first_temporal_layer=9)) == 4 * 2


def test_the_released_gates_stand_at_the_end_of_every_branch_without_bias() -> None:
    found = gated_layers("s3dg_slim")
    assert len(found) == 1 + 4 * 9 and "Conv2d_2c_3x3" in found and "Conv2d_1a_7x7" not in found
    with torch.device("meta"):
        network = built("s3dg_slim")
    assert all(module.conv.bias is None for module in network.modules() if isinstance(module, SelfGate))


def test_gates_may_stand_after_whole_blocks() -> None:
    found = gated_layers("s3d_paper", gates="blocks")
    assert found == {"Conv2d_2c_3x3", *MIXED}
    network = small("s3d_paper", gates="blocks").eval()
    x = torch.randn(1, 3, 4, 32, 32)
    block = network.stages["Mixed_3b"]
    with torch.no_grad():
        found_before = network.forward_features(x, ["MaxPool_3a_3x3"])["MaxPool_3a_3x3"]
        gate, block.gate = block.gate, None  # type: ignore[assignment]
        plain = block(found_before)
        block.gate = gate
        assert torch.equal(block(found_before), gate(plain))  # type: ignore[operator]


def test_a_separable_stem_is_a_spatial_and_a_temporal_convolution() -> None:
    with torch.device("meta"):
        paper, slim = (built(name).stages["Conv2d_1a_7x7"] for name in ("s3d_paper", "s3d_slim"))
    assert (paper.spatial.conv.kernel_size, paper.temporal.conv.kernel_size) == ((1, 7, 7), (7, 1, 1))
    assert (paper.spatial.conv.stride, paper.temporal.conv.stride) == ((1, 2, 2), (2, 1, 1))
    assert slim.spatial.conv.kernel_size == (3, 7, 7) and slim.temporal is None


@pytest.mark.parametrize("k", range(11))
@pytest.mark.parametrize("side", ["top", "bottom"])
def test_both_families_of_figure_4_have_temporal_windows_of_one_length(side: str, k: int) -> None:
    with torch.device("meta"):
        networks = [built(f"{side}_heavy_{kind}_k{k}") for kind in ("i3d", "s3d")]
    spans = []
    for network in networks:
        layers = {
            stage: [m for m in network.stages[stage].modules() if isinstance(m, SpatioTemporalLayer)]
            for stage in network.stages
        }
        spans.append(
            {
                stage: max((c.conv.kernel_size[0] for m in found for c in (m.spatial, m.temporal) if c), default=1)
                for stage, found in layers.items()
            }
        )
    assert spans[0] == spans[1]
    assert spans[0]["Conv2d_1a_7x7"] == (7 if side == "bottom" or k == 0 else 1)


def test_normalisation_without_scale_has_no_weight_to_train() -> None:
    network = small("s3dg_slim")
    norm = network.stages["Conv2d_1a_7x7"].spatial.norm  # type: ignore[union-attr]
    assert norm.eps == 1e-3
    assert norm.momentum == 0.001
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    assert "weight" not in norm.state_dict()
    set_momentum(network, 0.1)
    assert norm.momentum == 0.1


def test_a_non_local_block_starts_as_the_identity_and_sees_everything() -> None:
    block = small("nl_s3dg").stages["NonLocal_5b"]
    x = torch.randn(1, block.theta.in_channels, 2, 3, 3)
    assert torch.equal(block(x), x)
    torch.nn.init.normal_(block.output.weight)
    other = x.clone()
    other[..., 0, 0, 0] += 1
    assert ((block(x) - block(other)).abs().amax(1) > 0).all()


def test_a_non_local_block_is_attention_over_all_positions() -> None:
    block = small("nl_s3dg").stages["NonLocal_5b"].double()
    for layer in (block.theta, block.phi, block.g, block.output):
        torch.nn.init.normal_(layer.weight, std=0.2)
    x = torch.randn(1, block.theta.in_channels, 2, 2, 3, dtype=torch.float64)
    theta, phi, g = (layer(x)[0].flatten(1) for layer in (block.theta, block.phi, block.g))
    attention = torch.softmax(theta.T @ phi, 1)
    expected = x + block.output((g @ attention.T).reshape(1, -1, 2, 2, 3))
    assert torch.allclose(block(x), expected)


# Padding


@given(size=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_same_padding_gives_ceil_of_size_over_stride(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride) or kernel < stride
    assert 0 <= after - before <= 1


@given(size=st.integers(3, 12), kernel=st.sampled_from([2, 3, 5, 7]), stride=st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_padding_follows_the_closed_form(size: int, kernel: int, stride: int) -> None:
    """Output i of TensorFlow's 'SAME' sums inputs i·stride − before … i·stride − before + kernel − 1."""
    before, _ = same_padding(size, kernel, stride)
    x = torch.arange(1.0, size + 1)
    starts = [i * stride - before for i in range(-(-size // stride))]
    windows = [[x[j].item() for j in range(s, s + kernel) if 0 <= j < size] for s in starts]
    clip = x.view(1, 1, 1, size, 1).expand(1, 1, 2, size, 3).contiguous()
    convolution = PaddedConv3d(1, 1, (1, kernel, 1), (1, stride, 1), padding="same")
    torch.nn.init.ones_(convolution.weight)
    assert convolution(clip)[0, 0, 0, :, 0].tolist() == pytest.approx([sum(w) for w in windows])
    pool = PaddedMaxPool3d((1, kernel, 1), (1, stride, 1), "same")
    assert pool(clip)[0, 0, 0, :, 0].tolist() == [max(w) for w in windows]


def test_the_padding_of_ported_weights_matters() -> None:
    """On an even input with stride 2, 'SAME' starts one pixel later than symmetric padding."""
    x = torch.zeros(1, 1, 1, 8, 8)
    x[..., 0, 0] = 1.0
    same, symmetric = (PaddedConv3d(1, 1, (1, 7, 7), (1, 2, 2), padding=p) for p in ("same", "symmetric"))
    with torch.no_grad():
        kernel = torch.arange(49.0).view(1, 1, 1, 7, 7)
        same.weight.copy_(kernel)
        symmetric.weight.copy_(kernel)
        assert same(x)[0, 0, 0, 0, 0] == 2 * 7 + 2
        assert symmetric(x)[0, 0, 0, 0, 0] == 3 * 7 + 3


def test_odd_strides_and_short_clips_agree_with_explicit_padding() -> None:
    x = torch.randn(1, 2, 5, 9, 8)
    for kernel, stride in (((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((1, 3, 3), (1, 2, 2))):
        pads = [same_padding(n, k, s) for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
        flat = [n for pair in reversed(pads) for n in pair]
        expected = F.max_pool3d(F.pad(x, flat, value=-torch.inf), kernel, stride)
        assert torch.equal(PaddedMaxPool3d(kernel, stride, "same")(x), expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((1, 1, 1), (1, 1, 1), "same"),
        ((3, 1, 1), (1, 1, 1), "same"),
        ((7, 1, 1), (2, 1, 1), "symmetric"),
        ((1, 3, 3), (1, 1, 1), "same"),
        ((1, 7, 7), (1, 2, 2), "symmetric"),
        ((1, 1, 1), (1, 2, 2), "symmetric"),
        ((3, 3, 3), (2, 2, 2), "symmetric"),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_folded_convolutions_are_the_3d_convolution(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: str, layout: torch.memory_format
) -> None:
    convolution = PaddedConv3d(4, 6, kernel, stride, bias=True, padding=padding)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 5, 8, 9).to(memory_format=layout).requires_grad_()
    plain = x.detach().contiguous().requires_grad_()
    half = [k // 2 for k in kernel]
    expected = F.conv3d(plain, convolution.weight, convolution.bias, stride, half)
    found = convolution(x)
    assert torch.allclose(found, expected, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), [x, convolution.weight]),
        torch.autograd.grad(expected.square().sum(), [plain, convolution.weight]),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)

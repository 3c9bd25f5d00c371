"""Single layers against closed forms: gates, normalisation, attention, padding, folded convolutions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import small

from pipeline_lib.models.layers import PaddedConv3d, PaddedMaxPool3d, same_padding
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

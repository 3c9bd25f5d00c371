"""Every network of the catalogue: it can be built, run on several sizes, and read at each endpoint."""

import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.errors import UserError
from pipeline_lib.models import catalogue, mvit
from pipeline_lib.models.complexity import count, rows
from pipeline_lib.models.inception3d import MIXED, SpatioTemporalLayer
from pipeline_lib.models.layers import PaddedConv3d, PaddedMaxPool3d, same_padding
from pipeline_lib.models.network import VideoNetwork
from pipeline_lib.training.batch_norm import set_momentum

SMALL: dict[str, dict[str, Any]] = {
    catalogue.INCEPTION: {"depth_multiplier": 0.0625, "minimum_depth": 4},
    catalogue.RESNET: {"width": 8},
    catalogue.SLOW: {"width": 8},
    catalogue.PREDICTED_FLOW: {"depth_multiplier": 0.0625, "minimum_depth": 4},
    catalogue.MVIT: {"depths": [1, 1, 2], "width": 8, "num_frames": 4, "side": 32},
    catalogue.SWIN: {"depths": [2, 1], "width": 8, "num_heads": [1, 2], "window": [2, 4, 4]},
}


def built(name: str, num_classes: int = 5, in_channels: int = 3, **options: Any) -> VideoNetwork:
    module, defaults = catalogue.resolve(name)
    network: VideoNetwork = importlib.import_module(module).build(num_classes, in_channels, **{**defaults, **options})
    return network


def small(name: str, in_channels: int = 3, **options: Any) -> VideoNetwork:
    torch.manual_seed(0)
    return built(name, in_channels=in_channels, **{**SMALL[catalogue.resolve(name)[0]], **options})


def noise(network: VideoNetwork, batch: int = 2, frames: int = 8, height: int = 48, width: int = 48) -> torch.Tensor:
    """A clip that the network takes; the given length and size hold where it takes any."""
    takes = network.input
    return torch.randn(batch, takes.channels, takes.num_frames or frames, takes.side or height, takes.side or width)


NAMES = list(catalogue.names())
FEW = ["s3dg", "s3d", "nl_s3dg", "i2d", "r2d_18", "rmc4_18", "r2plus1d_34", "modist_r18", "modist_motion_r50"]
FEW += ["s3dg_predicted_flow", "torchvision/mvit_v2_s", "torchvision/swin3d_t"]


def test_the_catalogue_has_every_network_of_the_papers() -> None:
    families = ["r2d", "f_r2d", *(f"{m}{x}" for m in ("mc", "rmc") for x in range(2, 6)), "r3d", "r2plus1d"]
    expected = {f"{family}_{depth}" for family in families for depth in (18, 34)}
    expected |= {
        f"{side}_heavy_{kind}_k{k}" for side in ("top", "bottom") for kind in ("i3d", "s3d") for k in range(11)
    }
    expected |= {"i3d", "i2d", "s3d", "fast_s3d", "s3dg", "nl_s3dg", "modist_r50", "modist_r18", "slow_r50"}
    expected |= {"modist_motion_r50", "modist_motion_r50_stacked", "s3d_four_branches", "s3d_slim"}
    assert expected <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_gives_logits_and_endpoints(name: str) -> None:
    with torch.device("meta"):
        network = built(name).eval()
        clip = noise(network, frames=9, height=64, width=80)
        found = network.forward_endpoints(clip, network.endpoints)
    assert list(found) == list(network.endpoints)
    assert found["logits"].shape == (2, 5)
    assert all(found[endpoint].dim() == 5 for endpoint in network.endpoints[:-1])


def test_endpoints_have_the_papers_names() -> None:
    with torch.device("meta"):
        assert {"Conv2d_2c_3x3", "MaxPool_3a_3x3", "Mixed_4c", "Mixed_4f", "Mixed_5c"} <= set(built("s3dg").endpoints)
        assert built("r3d_18").endpoints == ("conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x", "logits")
        assert built("modist_r50").endpoints == ("conv1", "pool1", "res2", "res3", "res4", "res5", "logits")
        assert "NonLocal_5b" in built("nl_s3dg").endpoints


@pytest.mark.parametrize("name", FEW)
def test_clips_of_other_lengths_and_sizes_work(name: str) -> None:
    network = small(name, in_channels=2).eval()
    for frames, height, width in ((16, 56, 56), (7, 32, 44), (1, 16, 16)):
        with torch.no_grad():
            logits = network(noise(network, 2, frames, height, width))
        assert logits.shape == (2, 5)
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", FEW)
def test_training_reaches_every_parameter(name: str) -> None:
    network = small(name).train()
    F.cross_entropy(network(noise(network)), torch.tensor([0, 3])).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert not without


def test_an_early_endpoint_computes_nothing_behind_it() -> None:
    network = small("s3dg").eval()
    network.stages["Mixed_4c"] = torch.nn.Identity()  # its successor would now get the wrong number of channels
    clip = torch.randn(1, 3, 8, 32, 32)
    assert list(network.forward_features(clip, ["Mixed_3b", "MaxPool_3a_3x3"])) == ["MaxPool_3a_3x3", "Mixed_3b"]
    with pytest.raises(RuntimeError):
        network.forward_endpoints(clip, ["Mixed_3b"])


def test_endpoints_are_what_forward_computes() -> None:
    network = small("r2plus1d_18").eval()
    clip = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        found = network.forward_endpoints(clip, ["conv4_x"])
        assert torch.equal(found["logits"], network(clip))
        rest = network.head(network.stages["conv5_x"](found["conv4_x"]))
    assert torch.equal(rest, found["logits"])


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (torch.zeros(3, 8, 32, 32), "five axes"),
        (torch.zeros(1, 2, 8, 32, 32), "3 input channels"),
        (torch.zeros(1, 3, 8, 8, 32), "16×16"),
    ],
)
def test_clips_that_do_not_suit_are_refused(clip: torch.Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        small("s3dg")(clip)


def test_r2d_says_how_many_frames_it_wants() -> None:
    with pytest.raises(UserError, match="num_frames to 12"):
        small("r2d_18")(torch.zeros(1, 3, 12, 32, 32))
    assert small("r2d_18", num_frames=12)(torch.zeros(2, 3, 12, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("s3dg", {"depth_multiplier": 0.0}),
        ("s3dg", {"stem_kernel": 4}),
        ("s3dg", {"first_temporal_layer": 12}),
        ("r3d_18", {"depth": 50}),
        ("r3d_18", {"kinds": ["3d"] * 4}),
        ("slow_r50", {"temporal_kernels": [1, 1, 2, 3]}),
        ("slow_r50", {"frames": "stacked"}),
        ("slow_r50", {"dropout": 1.0}),
        ("torchvision/mvit_v2_s", {"side": 112 + 8}),
        ("torchvision/mvit_v2_s", {"num_frames": 7}),
        ("torchvision/mvit_v2_s", {"width": 9, "num_heads": 2}),
        ("torchvision/swin3d_t", {"num_heads": [3, 6, 12]}),
        ("torchvision/swin3d_t", {"num_heads": [5, 6, 12, 24]}),
        ("torchvision/swin3d_t", {"stochastic_depth": 1.0}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        built(name, **options)


def test_an_unknown_network_is_answered_with_those_that_sound_alike() -> None:
    with pytest.raises(UserError, match="s3dg"):
        catalogue.resolve("s3d_g")


def test_shapes_of_endpoints_are_told_without_data() -> None:
    for name in FEW:
        network = small(name).eval()
        clip = noise(network, 1, 8, 32, 32)
        with torch.no_grad():
            found = network.forward_endpoints(clip, network.endpoints)
        told = network.endpoint_shapes(None, clip.shape[2], clip.shape[3])
        assert told == {endpoint: tuple(x.shape[1:]) for endpoint, x in found.items()}
        assert list(told) == list(network.endpoints)
        assert not any(tensor.is_meta for tensor in network.state_dict().values())
    with pytest.raises(UserError, match="no endpoint Mixed_9z"):
        small("s3dg").endpoint_shapes(["Mixed_9z"])


# torchvision's networks, read through hooks


def test_tokens_become_a_grid_of_time_and_space() -> None:
    network = small("torchvision/mvit_v2_s").eval()
    patches = torch.zeros(1, 8, 2, 8, 8)
    patches[0, 3, 1, 5, 2] = 1.0
    with torch.no_grad():
        tokens = network.body.pos_encoding(patches.flatten(2).transpose(1, 2))
    grid = mvit.token_grid((tokens, (2, 8, 8)))
    assert torch.equal(grid, patches)
    assert network.endpoint_shapes() == {
        "conv_proj": (8, 2, 8, 8),
        "blocks.0": (8, 2, 8, 8),
        "blocks.1": (16, 2, 4, 4),
        "blocks.2": (32, 2, 2, 2),
        "blocks.3": (32, 2, 2, 2),
        "logits": (5,),
    }
    swin = small("torchvision/swin3d_t").endpoint_shapes(None, 8, 32)
    assert swin == {
        "patch_embed": (8, 4, 8, 8),
        "features.0": (8, 4, 8, 8),
        "features.1": (16, 4, 4, 4),
        "features.2": (16, 4, 4, 4),
        "logits": (5,),
    }


@pytest.mark.parametrize("name", ["torchvision/mvit_v2_s", "torchvision/swin3d_t"])
def test_hooks_change_nothing_and_are_gone_after_the_pass(name: str) -> None:
    network = small(name).eval()
    clip = noise(network, height=32, width=32)
    inside = network.endpoints[-3]
    with torch.no_grad():
        found = network.forward_endpoints(clip, [inside])
        assert torch.equal(found["logits"], network(clip))
        assert torch.equal(network.forward_features(clip, [inside])[inside], found[inside])
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", ["torchvision/mvit_v2_s", "torchvision/swin3d_t"])
def test_an_early_hook_ends_the_pass(name: str) -> None:
    network = small(name).eval()
    first, last = network.endpoints[0], network.endpoints[-2]
    network.body.get_submodule(last).register_forward_pre_hook(lambda *_: pytest.fail("was run"))
    assert list(network.forward_features(noise(network), [first])) == [first]


def test_a_network_of_fixed_size_says_which() -> None:
    with pytest.raises(UserError, match="exactly 32×32 pixels and got 48×48"):
        small("torchvision/mvit_v2_s")(torch.zeros(1, 3, 4, 48, 48))
    with pytest.raises(UserError, match="num_frames to 8"):
        small("torchvision/mvit_v2_s")(torch.zeros(1, 3, 8, 32, 32))


# Which layers convolve over time


def temporal_layers(name: str) -> list[int]:
    """Indices K of the layers of Fig. 2 that have a temporal kernel."""
    with torch.device("meta"):
        network = built(name)
    found = []
    for index, stage in enumerate(("Conv2d_1a_7x7", "Conv2d_2c_3x3", *MIXED)):
        kernels = [m.conv.kernel_size[0] for m in network.stages[stage].modules() if hasattr(m, "conv")]
        if max(kernels) > 1:
            found.append(index)
    return found


@pytest.mark.parametrize("k", range(11))
@pytest.mark.parametrize("kind", ["i3d", "s3d"])
def test_layer_k_itself_convolves_over_time_in_both(kind: str, k: int) -> None:
    assert temporal_layers(f"top_heavy_{kind}_k{k}") == list(range(k, 11))
    assert temporal_layers(f"bottom_heavy_{kind}_k{k}") == list(range(k + 1))


def test_fast_s3d_has_its_top_two_layers_in_3d() -> None:
    assert temporal_layers("fast_s3d") == [9, 10]
    assert temporal_layers("i2d") == []


@pytest.mark.parametrize(("name", "branches"), [("s3d_slim", {1, 2}), ("s3d_four_branches", {0, 1, 2, 3})])
def test_temporal_convolutions_lie_in_two_or_four_branches(name: str, branches: set[int]) -> None:
    with torch.device("meta"):
        mixed = built(name).stages["Mixed_4d"]
    found = {
        int(path.split(".")[0][-1])
        for path, module in mixed.named_modules()
        if isinstance(module, SpatioTemporalLayer) and module.temporal is not None
    }
    assert found == branches


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("r3d_18", [16, 16, 8, 4, 2]),
        ("f_r2d_18", [16] * 5),
        ("mc3_18", [16, 16, 16, 16, 16]),
        ("mc4_18", [16, 16, 8, 8, 8]),
        ("rmc3_18", [16, 16, 8, 4, 2]),
        ("rmc5_18", [16, 16, 16, 16, 8]),
    ],
)
def test_only_groups_that_convolve_over_time_stride_over_it(name: str, lengths: list[int]) -> None:
    with torch.device("meta"):
        network = built(name).eval()
        found = network.forward_features(torch.empty(1, 3, 16, 32, 32), network.endpoints[:-1])
    assert [x.shape[2] for x in found.values()] == lengths


def test_modist_has_the_shapes_of_table_1() -> None:
    with torch.device("meta"):
        visual = built("modist_r50").eval()
        found = visual.forward_features(torch.empty(1, 3, 8, 224, 224), ["conv1", "pool1", "res2", "res5"])
        assert [tuple(x.shape[1:]) for x in found.values()] == [
            (64, 4, 112, 112),
            (64, 4, 56, 56),
            (256, 4, 56, 56),
            (2048, 4, 7, 7),
        ]
        motion = built("modist_motion_r50", 128).eval()
        found = motion.forward_endpoints(torch.empty(1, 3, 16, 224, 224), ["conv1", "res5"])
        assert [tuple(x.shape[1:]) for x in found.values()] == [(8, 16, 112, 112), (256, 16, 7, 7), (128,)]
        assert built("modist_motion_r50_stacked").eval()(torch.empty(1, 3, 16, 64, 64)).shape == (1, 5)


def test_the_motion_pathway_is_an_eighth_of_resnet_50() -> None:
    """Counted from torchvision's ResNet-50, whose every width is divided by 8 (MoDist, section 3.3)."""
    expected = 256 * 128 + 128
    for name, parameter in torchvision.models.resnet50().named_parameters():
        if name == "conv1.weight":
            expected += parameter.numel() // 8
        elif parameter.dim() == 4:
            expected += parameter.numel() // 64
        elif not name.startswith("fc."):
            expected += parameter.numel() // 8
    with torch.device("meta"):
        motion = built("modist_motion_r50", 128)
        stacked = built("modist_motion_r50_stacked", 128)
    assert sum(parameter.numel() for parameter in motion.parameters()) == expected
    # Sixteen frames of three channels enter the first convolution instead of one.
    more = 15 * 3 * 8 * 7 * 7
    assert sum(parameter.numel() for parameter in stacked.parameters()) == expected + more


def test_a_projection_head_has_hidden_layers() -> None:
    network = small("modist_r18", num_hidden=2).eval()
    assert len(network.head.hidden) == 2
    assert network(torch.randn(1, 3, 4, 32, 32)).shape == (1, 5)


# Time


def reversal_difference(network: VideoNetwork, frames: int = 8) -> float:
    clip = torch.randn(1, 3, frames, 32, 32)
    with torch.no_grad():
        return float((network(clip) - network(clip.flip(2))).abs().max())


def with_statistics(network: VideoNetwork) -> VideoNetwork:
    """Batch statistics of noise, so that the logits of a fresh network depend on its input; then evaluation."""
    set_momentum(network, 1.0)
    network.train()
    for _ in range(2):
        network(noise(network, height=32, width=32))
    return network.eval()


def test_networks_without_temporal_filters_are_blind_to_the_arrow_of_time() -> None:
    assert reversal_difference(with_statistics(small("f_r2d_18"))) < 1e-5
    # Odd lengths stay even-handed only without temporal strides and pooling (S3D-G, footnote 4).
    assert reversal_difference(with_statistics(small("i2d", temporal_stride=False)), 7) < 1e-5
    assert reversal_difference(with_statistics(small("i2d"))) > 1e-4


@pytest.mark.parametrize("name", ["s3d", "r3d_18", "mc2_18", "slow_r50"])
def test_networks_with_temporal_filters_see_the_arrow_of_time(name: str) -> None:
    assert reversal_difference(with_statistics(small(name, dropout=0.0))) > 1e-4


def test_r2d_has_no_time_behind_its_first_layer() -> None:
    network = small("r2d_18").eval()
    found = network.forward_features(torch.randn(1, 3, 8, 32, 32), network.endpoints[:-1])
    assert {x.shape[2] for x in found.values()} == {1}


@pytest.mark.parametrize(("name", "reach"), [("f_r2d_18", 0), ("mc2_18", 1)])
def test_a_frame_reaches_as_far_as_the_temporal_kernels(name: str, reach: int) -> None:
    network = with_statistics(small(name))
    clip = torch.randn(1, 3, 9, 32, 32)
    other = clip.clone()
    other[:, :, 4] = torch.randn(3, 32, 32)
    with torch.no_grad():
        first, second = (network.forward_features(c, ["conv5_x"])["conv5_x"] for c in (clip, other))
    changed = (first - second).abs().amax((0, 1, 3, 4)) > 0
    assert changed.nonzero().flatten().tolist() == list(range(4 - reach, 5 + reach))


# Slim's details


def test_temporal_convolutions_start_as_the_identity() -> None:
    network = small("s3dg")
    temporal = network.stages["Mixed_3b"].Branch_1.Conv2d_0b_3x3.temporal  # type: ignore[union-attr]
    x = torch.rand(1, temporal.conv.in_channels, 5, 4, 4)
    assert temporal.norm is None
    assert torch.allclose(temporal(x), x)


def test_gates_scale_each_channel_by_one_number() -> None:
    layer = small("s3dg").stages["Conv2d_2c_3x3"]
    gate = layer.gate
    torch.nn.init.normal_(gate.conv.weight)
    x = torch.rand(2, gate.conv.in_channels, 3, 4, 4)
    expected = torch.sigmoid(x.mean((2, 3, 4)) @ gate.conv.weight.flatten(1).T)
    assert torch.allclose(gate(x), x * expected[:, :, None, None, None])
    assert small("s3d_slim").stages["Conv2d_2c_3x3"].gate is None


def test_normalisation_without_scale_has_no_weight_to_train() -> None:
    network = small("s3dg")
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


# Counts


def test_the_paper_counted_i3d_without_its_second_branch() -> None:
    found = count("i3d", 64, 224, counting="weights", options={"branch_2_kernel": 1})
    assert found.parameters / 1e6 == pytest.approx(12.06, abs=0.005)
    assert found.gmacs == pytest.approx(107.89, abs=0.01)


def test_torchvisions_counts() -> None:
    for name, frames, side, parameters, gmacs in (
        ("s3d", 16, 224, 8_320_048, 17.979),
        ("r3d_18", 16, 112, 33_371_472, 40.697),
        ("mc3_18", 16, 112, 11_695_440, 43.343),
        ("r2plus1d_18", 16, 112, 31_505_325, 40.519),
    ):
        found = count(name, frames, side)
        assert found.parameters == parameters
        assert found.gmacs == pytest.approx(gmacs, abs=0.0006)


def test_table_2_of_r2plus1d() -> None:
    table = [row for row in rows() if row.source == "R(2+1)D, Table 2"]
    assert len(table) == 12
    for row in table:
        found = count(row.name, row.num_frames, row.side, counting=row.counting).parameters / 1e6
        if row.name == "mc5_18":
            assert found == pytest.approx(row.paper["parameters_m"], abs=0.06)
        else:
            assert round(found, 1) == row.paper["parameters_m"], row.name


@pytest.mark.parametrize("name", ["r2plus1d_18_per_convolution", "r2plus1d_34_per_convolution"])
def test_factorised_pairs_have_about_as_many_weights_as_3d(name: str) -> None:
    full = count(name.replace("2plus1d", "3d").removesuffix("_per_convolution"), 8, 32, counting="weights").parameters
    assert count(name, 8, 32, counting="weights").parameters == pytest.approx(full, rel=1e-3)


def test_gating_costs_next_to_nothing() -> None:
    assert count("s3dg", 64, 224).gmacs - count("s3d_slim", 64, 224).gmacs < 0.01
    assert count("s3dg", 64, 224).parameters - count("s3d_slim", 64, 224).parameters == pytest.approx(1.22e6, rel=0.01)


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

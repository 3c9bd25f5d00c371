"""Which layers of a network see time, and how far; the networks of the papers against their tables."""

import pytest
import torch
import torchvision
from small_networks import built, noise, small
from torch import nn

from pipeline_lib.models.inception3d import MIXED, SpatioTemporalLayer
from pipeline_lib.models.network import VideoNetwork
from pipeline_lib.training.batch_norm import set_momentum


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


@pytest.mark.parametrize(("name", "branches"), [("s3d_slim", {1, 2}), ("s3d_paper", {0, 1, 2, 3})])
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


@pytest.mark.parametrize("name", ["modist_r50", "modist_r18", "slow_r50", "modist_motion_r50"])
def test_residual_blocks_start_as_their_shortcuts(name: str) -> None:
    """ZERO_INIT_FINAL_BN: the last normalisation of each block gives 0, so what remains is the shortcut."""
    network = small(name).train()
    for stage in ("res2", "res3", "res4", "res5"):
        for block in network.stages[stage]:
            x = torch.rand(2, block.a.conv.in_channels, 3, 8, 8)
            shortcut = x if block.shortcut is None else block.shortcut(x)
            assert torch.equal(block(x), shortcut.relu())
    scales = [m.weight for m in small(name, zero_init_final_norm=False).modules() if isinstance(m, nn.BatchNorm3d)]
    assert all(bool((scale == 1).all()) for scale in scales)


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


@pytest.mark.parametrize("name", ["s3d_paper", "r3d_18", "mc2_18", "slow_r50"])
def test_networks_with_temporal_filters_see_the_arrow_of_time(name: str) -> None:
    options = {"zero_init_final_norm": False} if name == "slow_r50" else {}
    assert reversal_difference(with_statistics(small(name, dropout=0.0, **options))) > 1e-4


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

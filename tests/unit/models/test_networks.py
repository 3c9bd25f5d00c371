"""Every network of the catalogue: it can be built, run on several sizes, and read at each endpoint."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import built, noise, small

from pipeline_lib.errors import UserError
from pipeline_lib.models import catalogue, mvit

NAMES = list(catalogue.names())
FEW = [
    "s3dg_slim",
    "s3dg_paper",
    "torchvision/s3d",
    "nl_s3dg",
    "i2d",
    "r2d_18",
    "rmc4_18",
    "r2plus1d_34",
    "modist_r18",
    "modist_motion_r50",
]
FEW += ["s3dg_predicted_flow", "torchvision/mvit_v2_s", "torchvision/swin3d_t"]


def test_the_catalogue_has_every_network_of_the_papers() -> None:
    families = ["r2d", "f_r2d", *(f"{m}{x}" for m in ("mc", "rmc") for x in range(2, 6)), "r3d", "r2plus1d"]
    expected = {f"{family}_{depth}" for family in families for depth in (18, 34)}
    expected |= {
        f"{side}_heavy_{kind}_k{k}" for side in ("top", "bottom") for kind in ("i3d", "s3d") for k in range(11)
    }
    expected |= {"i3d", "i2d", "fast_s3d", "s3dg_slim", "s3dg_paper", "nl_s3dg", "modist_r50", "modist_r18", "slow_r50"}
    expected |= {"modist_motion_r50", "modist_motion_r50_stacked", "s3d_paper", "s3d_slim"}
    expected |= {f"torchvision/{name}" for name in ("s3d", "r3d_18", "mc3_18", "r2plus1d_18")}
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
        assert {"Conv2d_2c_3x3", "MaxPool_3a_3x3", "Mixed_4c", "Mixed_4f", "Mixed_5c"} <= set(
            built("s3dg_slim").endpoints
        )
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
    network = small("s3dg_slim").eval()
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
        small("s3dg_slim")(clip)


def test_r2d_says_how_many_frames_it_wants() -> None:
    with pytest.raises(UserError, match="num_frames to 12"):
        small("r2d_18")(torch.zeros(1, 3, 12, 32, 32))
    assert small("r2d_18", num_frames=12)(torch.zeros(2, 3, 12, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("s3dg_slim", {"depth_multiplier": 0.0}),
        ("s3dg_slim", {"stem_kernel": 4}),
        ("s3dg_slim", {"first_temporal_layer": 12}),
        ("i3d", {"separable_stem": True}),
        ("i3d", {"gates": "temporal_convolutions"}),
        ("s3dg_slim", {"gates": "everywhere"}),
        ("s3dg_slim", {"gate_pooling": "channels"}),
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
    with pytest.raises(UserError, match="s3dg_slim"):
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
        small("s3dg_slim").endpoint_shapes(["Mixed_9z"])


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

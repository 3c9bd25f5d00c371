"""Image networks as starts: one file of each, inflated over time for every network and modality."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from slim_names import to_slim
from small_networks import built, weights_of
from torch import Tensor, nn

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.errors import UserError
from pipeline_lib.models.importing.publishers import convert
from pipeline_lib.models.importing.sources import IMAGENET, SOURCES
from pipeline_lib.models.network import VideoNetwork
from pipeline_lib.training.networks import initialise
from pipeline_lib.training.weights import load_metadata, load_weights, save_weights


def randomised(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def image_network(source: str) -> nn.Module:
    """torchvision's image network of a source, with random weights and statistics."""
    torch.manual_seed(0)
    more = {"init_weights": False} if source == "googlenet" else {}
    network: nn.Module = getattr(torchvision.models, source)(weights=None, num_classes=5, **more)
    if source == "googlenet":
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                # He's initial weights, so that features neither vanish nor explode over 22 layers.
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    return randomised(network)


Imported = Callable[[str], tuple[nn.Module, Path]]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """A function: an image network and the file that its import makes, each once."""
    folder = tmp_path_factory.mktemp("imported")

    @functools.cache
    def made(source: str) -> tuple[nn.Module, Path]:
        theirs = image_network(source)
        state, about = convert(SOURCES[f"torchvision/{source}"], theirs.state_dict())
        save_weights(folder / f"{source}.safetensors", state, about)
        return theirs, folder / f"{source}.safetensors"

    return made


def started(name: str, path: Path, in_channels: int = 3, **options: Any) -> tuple[VideoNetwork, list[str]]:
    torch.manual_seed(1)
    network = built(name, in_channels=in_channels, **options)
    return network.eval(), initialise(network, path)


@pytest.fixture
def googlenet(imported: Imported) -> tuple[nn.Module, Path]:
    return imported("googlenet")


def test_an_import_of_an_image_network_is_one_file_of_its_2d_form(googlenet: tuple[nn.Module, Path]) -> None:
    tensors, metadata = load_weights(googlenet[1])
    assert metadata["two_dimensional"] is True
    assert metadata["model"] == {"name": "i2d", "options": {"norm_scale": True}}
    network = built("i2d", norm_scale=True)
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name.startswith("head.") for name in missing)
    assert all(tensor.shape[2] == 1 for tensor in tensors.values() if tensor.dim() == 5)


@pytest.mark.parametrize("source", ["torchvision/googlenet", "torchvision/resnet18"])
def test_an_image_network_is_imported_for_no_network_and_no_modality(
    source: str, imported: Imported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(imported(source.rpartition("/")[2])[0].state_dict(), tmp_path / "image.pth")
    command = ["weights", "import", source, str(tmp_path / "image.pth"), "--root", str(tmp_path)]
    for wrong in (["--modality", "flow"], ["--model", "slow_r50"]):
        assert main([*command, *wrong]) == 2
        assert "leave out --model and --modality" in capsys.readouterr().err
    assert main(command) == 0
    assert load_metadata(Layout(tmp_path).imported(source))["two_dimensional"] is True


CAPTURED = {"Conv2d_2c_3x3": "conv3", "Mixed_3c": "inception3b", "Mixed_4f": "inception4e", "Mixed_5c": "inception5b"}


@pytest.mark.parametrize(
    ("name", "options", "edge"),
    [
        ("fast_s3d", {}, None),
        ("s3d_paper", {}, None),
        ("s3dg_paper", {"gates": "none"}, None),
        # Full kernels see zeros beyond the clip's ends, and pooling carries that inwards from layer to layer.
        ("s3d_slim", {}, (3, 5, 8)),
        ("i3d", {}, (3, 5, 8)),
    ],
)
def test_an_inflated_inception_is_the_image_network_on_a_still_clip(
    name: str, options: dict[str, Any], edge: tuple[int, ...] | None, googlenet: tuple[nn.Module, Path]
) -> None:
    theirs, path = copy.deepcopy(googlenet[0]).double(), googlenet[1]
    ours, fresh = started(name, path, norm_scale=True, **options)
    ours = ours.double()
    assert all(tensor.startswith("head.") for tensor in fresh)
    # 63 pixels: TensorFlow's padding and the image network's agree.
    image = torch.randn(1, 3, 63, 63, dtype=torch.float64)
    features: dict[str, Tensor] = {}
    for ours_name, theirs_name in CAPTURED.items():
        theirs.get_submodule(theirs_name).register_forward_hook(
            lambda _m, _i, output, name=ours_name: features.__setitem__(name, output)
        )
    with torch.no_grad():
        theirs(image)
        clip = image.unsqueeze(2).expand(-1, -1, 17 if edge is None else 65, -1, -1)
        found = ours.forward_features(clip, CAPTURED)
    for endpoint, left_out in zip(CAPTURED, (0, 0, 0, 0) if edge is None else edge, strict=False):
        x, expected = found[endpoint], features[endpoint]
        middle = x[:, :, left_out : x.shape[2] - left_out]
        assert middle.shape[2] > 0
        difference = (middle - expected.unsqueeze(2)).abs().max() / expected.abs().max()
        assert difference <= 1e-6, endpoint


def test_an_inflated_resnet_is_the_image_network_on_every_frame(imported: Imported) -> None:
    theirs, path = imported("resnet50")
    theirs = copy.deepcopy(theirs).double()
    ours, fresh = started("slow_r50", path, temporal_kernels=[1, 1, 1, 1])
    assert fresh == ["head.fc.bias", "head.fc.weight"]
    ours.head.fc.load_state_dict(theirs.fc.state_dict())  # type: ignore[union-attr]
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in IMAGENET)
    with torch.no_grad():
        expected = theirs((image - mean) / std)
        found = ours.double()((image * 2 - 1).unsqueeze(2).expand(-1, -1, 3, -1, -1))
    # The constants of the normalisation are stored in float32.
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("source", "name", "options"),
    [
        ("resnet18", "r3d_18", {}),
        ("resnet18", "r2plus1d_18", {}),
        ("resnet18", "torchvision/r2plus1d_18", {}),
        ("resnet18", "f_r2d_18", {}),
        ("resnet18", "mc4_18", {}),
        ("resnet18", "modist_r18", {}),
        ("resnet34", "r3d_34", {}),
        ("resnet50", "modist_r50", {}),
        ("googlenet", "i3d", {"norm_scale": True}),
        ("googlenet", "nl_s3dg", {"norm_scale": True}),
        ("googlenet", "s3dg_paper", {"norm_scale": True}),
        ("googlenet", "torchvision/s3d", {}),
    ],
)
@pytest.mark.parametrize("in_channels", [3, 2])
def test_one_file_starts_every_network_of_the_family_for_rgb_and_flow(
    source: str, name: str, options: dict[str, Any], in_channels: int, imported: Imported
) -> None:
    theirs, path = imported(source)
    ours, fresh = started(name, path, in_channels, **options)
    assert all(n.startswith("head.") or ".gate." in n or ".NonLocal" in n for n in fresh)
    state = ours.state_dict()
    kernel = next(p for p in theirs.parameters() if p.dim() == 4).detach()
    stem = next(t for t in state.values() if t.dim() == 5)
    if in_channels == 2:
        # TSN's cross-modality start: the mean over the colours for u and for v.
        kernel = kernel.mean(1, keepdim=True).expand(-1, 2, -1, -1)
        assert torch.equal(state["input_scale"], torch.ones(2)) and torch.equal(state["input_shift"], torch.zeros(2))
    rows = min(len(stem), len(kernel))
    assert torch.allclose(stem[:rows].sum(2), kernel[:rows], atol=1e-6)


@pytest.mark.parametrize("in_channels", [3, 2])
def test_frames_that_are_channels_get_the_images_filter_each(in_channels: int, imported: Imported) -> None:
    """R2D on a still clip: its first layer gives what the image network's gives."""
    theirs, path = imported("resnet18")
    ours, _ = started("r2d_18", path, in_channels)
    image = torch.randn(1, in_channels, 32, 32)
    scaled = image * ours.input_scale.view(-1, 1, 1) + ours.input_shift.view(-1, 1, 1)
    kernel: Tensor = theirs.conv1.weight  # type: ignore[assignment, union-attr]
    if in_channels == 2:
        kernel = kernel.mean(1, keepdim=True).expand(-1, 2, -1, -1)
    with torch.no_grad():
        expected = nn.functional.conv2d(scaled, kernel, stride=2, padding=3)
        clip = scaled.unsqueeze(2).expand(-1, -1, 8, -1, -1)
        found = ours.stages["conv1"].spatial.conv(clip.flatten(1, 2).unsqueeze(2))  # type: ignore[operator, union-attr]
    assert torch.allclose(found.squeeze(2), expected, atol=1e-4 * float(expected.abs().max()))


def test_gates_of_a_started_network_follow_the_seed_of_its_training(googlenet: tuple[nn.Module, Path]) -> None:
    first, second = (started("s3dg_slim", googlenet[1], norm_scale=True) for _ in range(2))
    assert any(".gate." in name for name in first[1])
    for name, tensor in first[0].state_dict().items():
        assert torch.equal(tensor, second[0].state_dict()[name]), name


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("s3dg_slim", {}, "norm_scale to true"),
        ("s3dg_slim", {"norm_scale": True, "depth_multiplier": 0.5}, "with its widths"),
        ("r3d_18", {}, "of this network's family"),
    ],
)
def test_an_image_network_that_does_not_fit_is_refused(
    name: str, options: dict[str, Any], words: str, googlenet: tuple[nn.Module, Path]
) -> None:
    with pytest.raises(UserError, match=f"^start: .*{words}"):
        started(name, googlenet[1], **options)


def test_slims_inception_has_no_scale_and_starts_a_network_without(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = {key: torch.randn_like(tensor) for key, tensor in weights_of(built("i2d")).items()}
    # The 2D file has kernels (H, W, in, out).
    arrays = {
        to_slim(key): (tensor[:, :, 0].permute(2, 3, 1, 0) if tensor.dim() == 5 else tensor).contiguous().numpy()
        for key, tensor in expected.items()
        if not key.startswith("head.")
    }
    np.savez(tmp_path / "slim.npz", **arrays)
    command = ["weights", "import", "slim/inception_v1", str(tmp_path / "slim.npz"), "--root", str(tmp_path)]
    assert main(command) == 0
    path = Layout(tmp_path).imported("slim/inception_v1")
    network, _ = started("s3dg_slim", path, 2)
    stem = network.state_dict()["stages.Conv2d_1a_7x7.spatial.conv.weight"]
    kernel = expected["stages.Conv2d_1a_7x7.spatial.conv.weight"]
    assert torch.allclose(stem, kernel.mean(1, keepdim=True).expand(-1, 2, 3, -1, -1) / 3)
    with pytest.raises(UserError, match="norm_scale to false"):
        started("s3dg_slim", path, norm_scale=True)

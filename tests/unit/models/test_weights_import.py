"""Public checkpoints: names of every source, inflation, and files that must be refused."""

import copy
import functools
import importlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from pipeline_lib.__main__ import main
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import resolve
from pipeline_lib.models.importing import names
from pipeline_lib.models.importing.checkpoint_files import read_checkpoint
from pipeline_lib.models.importing.conversion import fit
from pipeline_lib.models.importing.publishers import check_digest, convert
from pipeline_lib.models.importing.sources import IMAGENET, SOURCES
from pipeline_lib.models.network import VideoNetwork
from pipeline_lib.training.networks import initialise
from pipeline_lib.training.weights import load_metadata, load_weights, save_weights


def built(name: str, num_classes: int = 5, in_channels: int = 3, **options: Any) -> VideoNetwork:
    module, defaults = resolve(name)
    network: VideoNetwork = importlib.import_module(module).build(num_classes, in_channels, **{**defaults, **options})
    return network


def weights_of(network: VideoNetwork) -> dict[str, Tensor]:
    """The network's weights without its normalisation of the input and without counters."""
    left_out = ("input_scale", "input_shift", "num_batches_tracked")
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(left_out)}


def to_slim(name: str) -> str:
    """Our name → TF-slim's, written from s3dg.py and i3d_utils.py, independent of the map under test."""
    if name.startswith("head.conv."):
        return "InceptionV1/Logits/Conv2d_0c_1x1/" + {"weight": "weights", "bias": "biases"}[name.split(".")[-1]]
    *path, half, kind, leaf = name.removeprefix("stages.").split(".")
    scope = "InceptionV1/" + "/".join(path)
    if half == "gate":
        return f"{scope}/self_gating/transformer_W/weights"
    if half == "temporal" and kind == "conv":
        return f"{scope}/temporal/{ {'weight': 'weights', 'bias': 'biases'}[leaf] }"
    if kind == "norm":
        moving = {"bias": "beta", "weight": "gamma", "running_mean": "moving_mean", "running_var": "moving_variance"}
        return f"{scope}/BatchNorm/{moving[leaf]}"
    return f"{scope}/weights"


@pytest.mark.parametrize(("source", "name", "stem"), [("slim/s3dg", "s3dg_slim", 7), ("slim/i3d", "i3d", 7)])
def test_every_slim_name_finds_its_place(source: str, name: str, stem: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = built(name, num_classes=6, stem_kernel=stem)
    expected = {key: torch.randn_like(tensor) for key, tensor in weights_of(network).items()}
    arrays = {"global_step": np.int64(140_000)}
    for key, tensor in expected.items():
        # TensorFlow's kernels are (T, H, W, in, out).
        array = tensor.permute(2, 3, 4, 1, 0) if tensor.dim() == 5 else tensor
        arrays[to_slim(key)] = array.contiguous().numpy()
        arrays[to_slim(key) + "/Momentum"] = np.zeros(1, np.float32)
    np.savez(tmp_path / "slim.npz", **arrays)
    state, about = convert(SOURCES[source], read_checkpoint(tmp_path / "slim.npz"))
    assert about["num_classes"] == 6
    assert about["model"]["options"]["stem_kernel"] == stem
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor), key
    network.load_state_dict(state)


def to_kylemin(name: str) -> str:
    stages = {stage: index for index, stage in names.S3D_STAGES.items()}
    if name.startswith("head.conv."):
        return "module.fc.0." + name.split(".")[-1]
    stage, *path, half, kind, leaf = name.removeprefix("stages.").split(".")
    prefix = f"module.base.{stages[stage]}."
    separable = stage in ("Conv2d_1a_7x7", "Conv2d_2c_3x3") or (path and path[-1] == "Conv2d_0b_3x3")
    if path:
        branch = int(path[0][-1])
        prefix += f"branch{branch}.{1 if path[1].startswith('Conv2d_0b') else 0}."
    module = {"conv": "conv", "norm": "bn"}[kind] + (f"_{half[0]}" if separable else "")
    return f"{prefix}{module}.{leaf}"


def to_pyslowfast(name: str) -> str:
    if name.startswith("head.fc."):
        return "head.projection." + name.split(".")[-1]
    parts = name.removeprefix("stages.").split(".")
    if parts[0] == "conv1":
        return f"s1.pathway0_stem.{ {'conv': 'conv', 'norm': 'bn'}[parts[1]] }.{parts[2]}"
    stage, block, place, kind, leaf = parts
    where = "branch1" if place == "shortcut" else f"branch2.{place}"
    return f"s{stage[-1]}.pathway0_res{block}.{where}{'_bn' if kind == 'norm' else ''}.{leaf}"


def to_caffe2(name: str) -> str:
    leaves = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    if name.startswith("head.fc."):
        return {"weight": "pred_w", "bias": "pred_b"}[name.split(".")[-1]]
    parts = name.removeprefix("stages.").split(".")
    if parts[0] == "conv1":
        return "conv1_w" if parts[1] == "conv" else f"res_conv1_bn_{leaves[parts[2]]}"
    stage, block, place, kind, leaf = parts
    where = "branch1" if place == "shortcut" else f"branch2{place}"
    return f"{stage}_{block}_{where}_" + ("w" if kind == "conv" else f"bn_{leaves[leaf]}")


@pytest.mark.parametrize(
    ("source", "name", "to_theirs", "key"),
    [
        ("kylemin/s3d", "torchvision/s3d", to_kylemin, None),
        ("pyslowfast/slow_r50", "slow_r50", to_pyslowfast, "model_state"),
        ("maclr/slow_r50", "modist_r50", lambda n: "encoder_q." + to_pyslowfast(n), "model_state"),
    ],
)
def test_every_pytorch_name_finds_its_place(
    source: str, name: str, to_theirs: Any, key: str | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    expected = {key_: torch.randn_like(tensor) for key_, tensor in weights_of(built(name, 6)).items()}
    theirs = {to_theirs(key_): tensor for key_, tensor in expected.items()}
    assert len(theirs) == len(expected)
    torch.save(theirs if key is None else {key: theirs, "epoch": 3, "cfg": "TRAIN: x"}, tmp_path / "w.pth")
    state, about = convert(SOURCES[source], read_checkpoint(tmp_path / "w.pth"))
    assert about["num_classes"] == 6
    for ours, tensor in expected.items():
        assert torch.equal(state[ours], tensor), ours


@pytest.mark.parametrize("protocol", [0, 2])
def test_caffe2_pickles_are_read_without_running_them(protocol: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = {key: torch.randn_like(tensor) for key, tensor in weights_of(built("slow_r50", 6, width=8)).items()}
    blobs: dict[str, Any] = {to_caffe2(key): tensor.numpy() for key, tensor in expected.items()}
    blobs |= {"conv1_w_momentum": np.zeros(3, np.float32), "lr": np.float32(0.1), "model_iter": np.int64(7)}
    (tmp_path / "slow.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol))
    state, _ = convert(SOURCES["pyslowfast/slow_r50"], read_checkpoint(tmp_path / "slow.pkl"), options={"width": 8})
    for ours, tensor in expected.items():
        assert torch.equal(state[ours], tensor), ours


# Image networks


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


def test_addresses_and_normalisations_are_torchvisions() -> None:
    for name, source in SOURCES.items():
        if source.torchvision is not None:
            weights = next(iter(torchvision.models.get_model_weights(source.torchvision)))
            assert source.url == weights.url, name


def test_slims_2d_inception_is_read_with_its_misnamed_layer() -> None:
    assert names.slim("InceptionV1/InceptionV1/Mixed_5b/Branch_2/Conv2d_0a_3x3/weights") == (
        "stages.Mixed_5b.Branch_2.Conv2d_0b_3x3.spatial.conv.weight"
    )


def test_a_stem_for_flow_is_the_mean_over_the_colours() -> None:
    theirs = torchvision.models.video.mc3_18(weights=None, num_classes=5)
    source = SOURCES["torchvision/mc3_18"]
    rgb, _ = convert(source, theirs.state_dict())
    flow, about = convert(source, theirs.state_dict(), in_channels=2)
    assert about["in_channels"] == 2
    kernel = "stages.conv1.spatial.conv.weight"
    assert torch.allclose(flow[kernel], rgb[kernel].mean(1, keepdim=True).expand(-1, 2, -1, -1, -1))
    built("mc3_18", in_channels=2).load_state_dict(flow)


# What does not fit


def test_a_mismatch_lists_every_key() -> None:
    network = built("r3d_18", width=8)
    tensors = dict(network.state_dict())
    del tensors["stages.conv1.spatial.conv.weight"]
    tensors["head.fc.weight"] = torch.zeros(5, 7)
    tensors["stages.conv9.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as caught:
        fit(tensors, network, ["optimiser.state"])
    text = str(caught.value)
    assert "1 missing" in text
    assert "stages.conv1.spatial.conv.weight" in text
    assert "2 unexpected" in text
    assert "optimiser.state" in text
    assert "stages.conv9.weight" in text
    assert "head.fc.weight: (5, 7) in the file, (5, 64) here" in text


def test_weights_of_another_network_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r3d.pth"
    torch.save(torchvision.models.video.r3d_18(weights=None).state_dict(), file)
    out = tmp_path / "out.safetensors"
    assert main(["weights", "import", "torchvision/mc3_18", str(file), "--out", str(out)]) == 2
    assert "stages.conv3_x.0.conv1.spatial.conv.weight: (128, 64, 3, 3, 3)" in capsys.readouterr().err
    assert main(["weights", "import", "torchvision/s3d", str(file), "--out", str(out)]) == 2
    assert main(["weights", "import", "torchvision/mc3_18", str(file), "--out", str(out), "--model", "s3dg_slim"]) == 2
    assert main(["weights", "import", "nowhere/x", str(file), "--out", str(out)]) == 2
    assert not out.exists()


class Malicious:
    """What a pickle with code in it looks like."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (eval, ("open('/tmp/pipeline_lib_was_here', 'w')",))


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def saved(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def object_array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.array([Malicious()], dtype=object))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pickle.dumps({"blobs": Malicious()}), id="bare pickle"),
        pytest.param(pickle.dumps({"blobs": {"w": Malicious()}}, 0), id="text pickle"),
        pytest.param(pickle.dumps(np.load), id="a function"),
        pytest.param(saved({"w": Malicious()}), id="torch zip"),
        pytest.param(saved({"w": Malicious()}, _use_new_zipfile_serialization=False), id="torch stream"),
        pytest.param(saved(nn.Linear(1, 1)), id="a whole module"),
        pytest.param(object_array(), id="object array"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>404</html>", id="a web page"),
        pytest.param(b"\x80\x02nonsense", id="broken pickle"),
        pytest.param(zipped({"readme.txt": b"hello"}), id="another zip"),
        pytest.param(saved({"w": torch.zeros(1000)})[:-900], id="truncated zip"),
        pytest.param(saved({"w": torch.zeros(1000)}, _use_new_zipfile_serialization=False)[:-900], id="truncated"),
        pytest.param(saved([1, 2, 3]), id="no names"),
        pytest.param(saved({"epoch": 3}), id="no tensors"),
        pytest.param((100).to_bytes(8, "little") + b'{"a": 1', id="truncated safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    mark = Path("/tmp/pipeline_lib_was_here")
    mark.unlink(missing_ok=True)
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.pth"):
        read_checkpoint(tmp_path / "file.pth")
    assert not mark.exists()


def test_tensorflows_own_files_are_answered_with_the_way_to_npz(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.index").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"numpy\.savez"):
        read_checkpoint(tmp_path / "model.ckpt.index")
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    # A name with digits is compared with the file's before the file is read.
    with pytest.raises(UserError, match="no such file"):
        check_digest(tmp_path / "s3d-d76dad2f.pth")


def test_torchs_older_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(saved({"w": torch.arange(3.0)}, _use_new_zipfile_serialization=False))
    assert read_checkpoint(tmp_path / "old.pth")["w"].tolist() == [0, 1, 2]


def test_a_cut_download_is_noticed_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "s3d-d76dad2f.pth").write_bytes(b"half")
    with pytest.raises(UserError, match="d76dad2f"):
        check_digest(tmp_path / "s3d-d76dad2f.pth")


# The command


def test_imported_weights_start_an_experiment(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.video.mc3_18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "mc3.pth")
    root = tmp_path / "output"
    command = ["weights", "import", "torchvision/mc3_18", str(tmp_path / "mc3.pth"), "--root", str(root)]
    assert main(command) == 0
    out = root / "imported" / "torchvision" / "mc3_18.safetensors"
    first = out.read_bytes()
    metadata = load_metadata(out)
    assert metadata["model"] == {"name": "torchvision/mc3_18", "options": {}}
    assert metadata["classes"][0] == "abseiling"
    assert len(metadata["classes"]) == metadata["num_classes"] == 400
    network = built("mc3_18", 8)
    assert initialise(network, out) == ["head.fc.bias", "head.fc.weight"]
    tensors, _ = load_weights(out)
    assert torch.equal(
        network.stages["conv3_x"][0].conv1.spatial.conv.weight, tensors["stages.conv3_x.0.conv1.spatial.conv.weight"]
    )
    assert network._rescales
    assert main(command) == 0
    assert out.read_bytes() == first


def test_offline_names_the_file_and_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "import", "torchvision/s3d", "--offline", "--root", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "https://download.pytorch.org/models/s3d-d76dad2f.pth" in message
    assert str(tmp_path / "imported" / "downloads" / "s3d-d76dad2f.pth") in message
    assert main(["weights", "import", "slim/s3dg", "--offline", "--root", str(tmp_path)]) == 2
    assert "d3dhelper" in capsys.readouterr().err


def test_a_file_at_its_place_needs_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "imported" / "downloads" / "s3d-d76dad2f.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"not the real one")
    assert main(["weights", "import", "torchvision/s3d", "--offline", "--root", str(tmp_path)]) == 2
    assert "truncated or altered" in capsys.readouterr().err


def test_sources_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SOURCES)


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json", "torchvision/s3d", "fast_s3d"]) == 0
    table = json.loads(capsys.readouterr().out)
    first = table[0]
    assert first["name"] == "torchvision/s3d"
    assert first["parameters"] == 8_320_048
    assert first["gmacs"] == pytest.approx(17.979, abs=0.001)
    fast = next(entry for entry in table if entry["name"] == "fast_s3d")
    assert fast["paper"] == {"gmacs": 43.47}
    assert fast["difference"]["gmacs"] == pytest.approx(fast["gmacs"] - 43.47, abs=0.001)
    assert main(["models", "s3dg_slim"]) == 0
    assert "no variant known to us" in capsys.readouterr().out
    assert main(["models", "nonsense"]) == 2

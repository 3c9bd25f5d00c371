"""Names of every public source's tensors find their places in our networks."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from slim_names import to_slim
from small_networks import built, weights_of

from pipeline_lib.models.importing import names
from pipeline_lib.models.importing.checkpoint_files import read_checkpoint
from pipeline_lib.models.importing.publishers import convert
from pipeline_lib.models.importing.sources import SOURCES


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

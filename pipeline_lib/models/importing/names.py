"""From the tensor names of public code to this library's: pure functions on names, one per source.

A function returns the name here, or ``None`` for an entry that is not a weight of the network (an optimiser's state, an
auxiliary classifier). It raises ``KeyError`` for a name that it does not know.
"""

import re
from collections.abc import Callable

NameMap = Callable[[str], str | None]

# torchvision's and kylemin's S3D: position in ``features`` or ``base`` → endpoint.
S3D_STAGES = {
    0: "Conv2d_1a_7x7",
    2: "Conv2d_2b_1x1",
    3: "Conv2d_2c_3x3",
    5: "Mixed_3b",
    6: "Mixed_3c",
    8: "Mixed_4b",
    9: "Mixed_4c",
    10: "Mixed_4d",
    11: "Mixed_4e",
    12: "Mixed_4f",
    14: "Mixed_5b",
    15: "Mixed_5c",
}
# Position of a layer inside a branch → its slim name.
BRANCH_LAYERS = {
    (0, 0): "Conv2d_0a_1x1",
    (1, 0): "Conv2d_0a_1x1",
    (1, 1): "Conv2d_0b_3x3",
    (2, 0): "Conv2d_0a_1x1",
    (2, 1): "Conv2d_0b_3x3",
    (3, 1): "Conv2d_0b_1x1",
}
# torchvision's Inception v1 numbers its blocks 3a …, slim 3b …, and its branches from 1.
GOOGLENET_BLOCKS = {
    "3a": "3b",
    "3b": "3c",
    "4a": "4b",
    "4b": "4c",
    "4c": "4d",
    "4d": "4e",
    "4e": "4f",
    "5a": "5b",
    "5b": "5c",
}


def _match(pattern: str, name: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, name)


def torchvision_s3d(name: str) -> str | None:
    """torchvision/models/video/s3d.py."""
    if match := _match(r"classifier\.1\.(weight|bias)", name):
        return f"head.conv.{match[1]}"
    kinds = ("conv", "norm")
    if match := _match(r"features\.(0|3)\.([01])\.([01])\.(\w+)", name):
        half = ("spatial", "temporal")[int(match[2])]
        return f"stages.{S3D_STAGES[int(match[1])]}.{half}.{kinds[int(match[3])]}.{match[4]}"
    if match := _match(r"features\.2\.([01])\.(\w+)", name):
        return f"stages.Conv2d_2b_1x1.spatial.{kinds[int(match[1])]}.{match[2]}"
    if match := _match(r"features\.(\d+)\.branch0\.([01])\.(\w+)", name):
        return f"stages.{S3D_STAGES[int(match[1])]}.Branch_0.Conv2d_0a_1x1.spatial.{kinds[int(match[2])]}.{match[3]}"
    if match := _match(r"features\.(\d+)\.branch([123])\.([01])\.([01])\.(\w+)", name):
        layer = BRANCH_LAYERS[int(match[2]), int(match[3])]
        prefix = f"stages.{S3D_STAGES[int(match[1])]}.Branch_{match[2]}.{layer}"
        return f"{prefix}.spatial.{kinds[int(match[4])]}.{match[5]}"
    if match := _match(r"features\.(\d+)\.branch([12])\.1\.([01])\.([01])\.(\w+)", name):
        prefix = f"stages.{S3D_STAGES[int(match[1])]}.Branch_{match[2]}.Conv2d_0b_3x3"
        return f"{prefix}.{('spatial', 'temporal')[int(match[3])]}.{kinds[int(match[4])]}.{match[5]}"
    raise KeyError(name)


def kylemin_s3d(name: str) -> str | None:
    """github.com/kylemin/S3D model.py; the released file was saved from a data-parallel module."""
    name = name.removeprefix("module.")
    if match := _match(r"fc\.0\.(weight|bias)", name):
        return f"head.conv.{match[1]}"
    if match := _match(r"base\.(\d+)\.(?:branch(\d)\.(\d)\.)?(conv|bn)(?:_([st]))?\.(\w+)", name):
        prefix = f"stages.{S3D_STAGES[int(match[1])]}"
        if match[2] is not None:
            prefix += f".Branch_{match[2]}.{BRANCH_LAYERS[int(match[2]), int(match[3])]}"
        half = "temporal" if match[5] == "t" else "spatial"
        return f"{prefix}.{half}.{'conv' if match[4] == 'conv' else 'norm'}.{match[6]}"
    raise KeyError(name)


def torchvision_video_resnet(name: str) -> str | None:
    """torchvision/models/video/resnet.py: r3d_18, mc3_18, r2plus1d_18."""
    if match := _match(r"fc\.(weight|bias)", name):
        return f"head.fc.{match[1]}"
    places = ("spatial.conv", "spatial.norm", None, "temporal.conv", "temporal.norm")
    if match := _match(r"stem\.([0134])\.(\w+)", name):
        return f"stages.conv1.{places[int(match[1])]}.{match[2]}"
    block = r"layer([1-4])\.(\d+)"
    if match := _match(block + r"\.downsample\.([01])\.(\w+)", name):
        kind = ("conv", "norm")[int(match[3])]
        return f"stages.conv{int(match[1]) + 1}_x.{match[2]}.shortcut.{kind}.{match[4]}"
    # A (2+1)D convolution is a sequence inside the sequence; its second normalisation lies outside.
    if match := _match(block + r"\.conv([12])\.0\.([013])\.(\w+)", name):
        return f"stages.conv{int(match[1]) + 1}_x.{match[2]}.conv{match[3]}.{places[int(match[4])]}.{match[5]}"
    if match := _match(block + r"\.conv([12])\.0\.weight", name):
        return f"stages.conv{int(match[1]) + 1}_x.{match[2]}.conv{match[3]}.spatial.conv.weight"
    if match := _match(block + r"\.conv([12])\.1\.(\w+)", name):
        return f"stages.conv{int(match[1]) + 1}_x.{match[2]}.conv{match[3]}.LAST.norm.{match[4]}"
    raise KeyError(name)


def slim(name: str) -> str | None:
    """TF-slim's S3D-G, I3D and Inception v1 (research/slim/nets: s3dg.py, i3d_utils.py, inception_v1.py).

    Mixed_5b of the 2D network calls branch 2's second convolution ``Conv2d_0a_3x3``.
    """
    if name == "global_step" or re.search(r"/(ExponentialMovingAverage|Momentum|RMSProp(_1)?|Adam(_1)?)$", name):
        return None
    _, found, path = name.rpartition("InceptionV1/")
    if not found:
        raise KeyError(name)
    parts = path.replace("Branch_2/Conv2d_0a_3x3", "Branch_2/Conv2d_0b_3x3").split("/")
    leaf = {
        "weights": "conv.weight",
        "biases": "conv.bias",
        "BatchNorm/beta": "norm.bias",
        "BatchNorm/gamma": "norm.weight",
        "BatchNorm/moving_mean": "norm.running_mean",
        "BatchNorm/moving_variance": "norm.running_var",
    }
    last = leaf["/".join(parts[-2:])] if parts[-2] == "BatchNorm" else leaf[parts[-1]]
    parts = parts[: -2 if parts[-2] == "BatchNorm" else -1]
    if parts == ["Logits", "Conv2d_0c_1x1"]:
        return f"head.{last}"
    half = "spatial"
    if parts[-1] == "temporal":
        parts, half = parts[:-1], "temporal"
    elif parts[-2:] == ["self_gating", "transformer_W"]:
        parts, half = parts[:-2], "gate"
    if not _match(r"(Conv2d_\w+|Mixed_\w+/Branch_[0-3]/Conv2d_0[ab]_[13]x[13])", "/".join(parts)):
        raise KeyError(name)
    return f"stages.{'.'.join(parts)}.{half}.{last}"


def pyslowfast(name: str) -> str | None:
    """PySlowFast's single-pathway ResNet, its Caffe2 names too (slowfast/utils/c2_model_loading.py), and MaCLR's.

    MaCLR's file holds the self-supervised wrapper; its query encoder is the network (their checkpoint.py).
    """
    if "encoder_k" in name or name.startswith(("queue", "ptr")):
        return None
    name = re.sub(r"^(module\.)?(encoder_q\.|encoder\.|backbone\.)?(module\.)?", "", name)
    if name.endswith("_momentum") or name in ("lr", "model_iter", "weight_order"):
        return None
    if match := _match(r"s1\.pathway0_stem\.(conv|bn)\.(\w+)", name):
        return f"stages.conv1.{'conv' if match[1] == 'conv' else 'norm'}.{match[2]}"
    if match := _match(r"s([2-5])\.pathway0_res(\d+)\.branch1(_bn)?\.(\w+)", name):
        return f"stages.res{match[1]}.{match[2]}.shortcut.{'norm' if match[3] else 'conv'}.{match[4]}"
    if match := _match(r"s([2-5])\.pathway0_res(\d+)\.branch2\.([abc])(_bn)?\.(\w+)", name):
        return f"stages.res{match[1]}.{match[2]}.{match[3]}.{'norm' if match[4] else 'conv'}.{match[5]}"
    if match := _match(r"head\.projection\.(weight|bias)", name):
        return f"head.fc.{match[1]}"
    if name.startswith("head") or "pathway1" in name:
        return None
    leaf = {"w": "conv.weight", "bn_s": "norm.weight", "bn_b": "norm.bias"}
    leaf |= {"bn_rm": "norm.running_mean", "bn_riv": "norm.running_var"}
    if match := _match(r"(?:res_)?conv1_(w|bn_\w+)", name):
        return f"stages.conv1.{leaf[match[1]]}"
    if match := _match(r"res([2-5])_(\d+)_branch(1|2[abc])_(w|bn_\w+)", name):
        where = "shortcut" if match[3] == "1" else match[3][1]
        return f"stages.res{match[1]}.{match[2]}.{where}.{leaf[match[4]]}"
    if match := _match(r"pred_([wb])", name):
        return f"head.fc.{'weight' if match[1] == 'w' else 'bias'}"
    raise KeyError(name)


def torchvision_transformer(name: str) -> str:
    """torchvision/models/video/mvit.py and swin_transformer.py: the network keeps the module as its ``body``."""
    if match := _match(r"head\.(?:1\.)?(weight|bias)", name):
        return f"head.fc.{match[1]}"
    return f"body.{name}"


def torchvision_resnet(name: str) -> str | None:
    """torchvision/models/resnet.py (2D) → ``slow_resnet``, whose 2D networks hold it."""
    kinds = {"conv": "conv", "bn": "norm"}
    if name.startswith("fc."):
        return None
    if match := _match(r"(conv|bn)1\.(\w+)", name):
        return f"stages.conv1.{kinds[match[1]]}.{match[2]}"
    if match := _match(r"layer([1-4])\.(\d+)\.(conv|bn)([123])\.(\w+)", name):
        place = "abc"[int(match[4]) - 1]
        return f"stages.res{int(match[1]) + 1}.{match[2]}.{place}.{kinds[match[3]]}.{match[5]}"
    if match := _match(r"layer([1-4])\.(\d+)\.downsample\.([01])\.(\w+)", name):
        return f"stages.res{int(match[1]) + 1}.{match[2]}.shortcut.{('conv', 'norm')[int(match[3])]}.{match[4]}"
    raise KeyError(name)


def torchvision_googlenet(name: str) -> str | None:
    """torchvision/models/googlenet.py (2D Inception v1) → ``inception3d``; auxiliary classifiers are left out."""
    if name.startswith(("aux1.", "aux2.", "fc.")):
        return None
    kinds = {"conv": "conv", "bn": "norm"}
    stems = {"1": "Conv2d_1a_7x7", "2": "Conv2d_2b_1x1", "3": "Conv2d_2c_3x3"}
    if match := _match(r"conv([123])\.(conv|bn)\.(\w+)", name):
        return f"stages.{stems[match[1]]}.spatial.{kinds[match[2]]}.{match[3]}"
    if match := _match(r"inception(\d[a-e])\.branch([1-4])(?:\.([01]))?\.(conv|bn)\.(\w+)", name):
        branch = int(match[2]) - 1
        layer = BRANCH_LAYERS[branch, int(match[3] or 0)]
        prefix = f"stages.Mixed_{GOOGLENET_BLOCKS[match[1]]}.Branch_{branch}.{layer}"
        return f"{prefix}.spatial.{kinds[match[4]]}.{match[5]}"
    raise KeyError(name)

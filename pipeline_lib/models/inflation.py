"""A video network's first weights from an image network of its family (I3D's way; S3D-G, section 4.3).

The image network's tensors have the names of a 2D network here: ``i2d`` for Inception v1, ``resnet_18`` … ``resnet_50``
for ResNets, with kernels (out, in, 1, k, k).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline_lib.models.network import VideoNetwork

INPUT = ("input_scale", "input_shift")


def is_new(name: str) -> bool:
    """Whether a tensor is of a part that image networks lack: a gate or a non-local block. It stays as built."""
    return ".gate." in name or ".NonLocal" in name


def inflate(image: Mapping[str, Tensor], network: VideoNetwork) -> dict[str, Tensor]:
    """Tensors of a video network from those of its 2D relative.

    - A k×k kernel is repeated over the t frames of its 3D kernel and divided by t, so that a clip of equal frames gives
      the image's features away from the clip's ends.
    - A temporal convolution becomes the identity (slim's centre initialisation); its normalisation stays as built. If a
      (2+1)D pair has another width than the 2D layer, as many filters as fit are copied, and the identity joins them. A
      ReLU lies in between, so this is a starting point and not the same function.
    - Where frames are read as channels (R(2+1)D, section 3.1), each gets the same filter, divided by their number.
    - Where the network sees another number of channels than the image network (flow), its stem is averaged over them
      (``average_stem``).

    Args:
        image: name → tensor, as the file of a 2D network holds them.
        network: the video network, as built; it is not changed.

    Returns:
        Name → tensor under the network's names. The head and what ``is_new`` tells are left out. A tensor that finds no
        place keeps its name or its shape, so that whoever fills the network notices.
    """
    own = network.state_dict()
    image = _as_named_in(own, {name: tensor for name, tensor in image.items() if not name.startswith("head.")})
    stem = next(name for name, tensor in own.items() if tensor.dim() == 5)
    if stem in image and network.input.channels != len(image.get(INPUT[0], torch.ones(3))):
        image = average_stem(image, network.input.channels, stem)
    filled = dict(image)
    for name, reference in own.items():
        if ".temporal.conv.weight" in name:
            identity = torch.zeros_like(reference)
            shared = torch.arange(min(reference.shape[:2]))
            identity[shared, shared, reference.shape[2] // 2] = 1
            filled[name] = identity
        elif ".temporal." in name:
            filled.setdefault(name, reference)
        elif name in image:
            pair = name.replace(".spatial.", ".temporal.").replace(".norm.", ".conv.").rpartition(".")[0] + ".weight"
            filled[name] = _inflate_one(image[name], reference, pair in own and ".spatial." in name)
    return filled


def _as_named_in(own: Mapping[str, Tensor], image: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A 2D ResNet, which has the names of ``slow_resnet``, under those of the network that it fills."""
    if not any(name.startswith("stages.conv2_x.") for name in own):
        return dict(image)
    places = {"a": "conv1.spatial", "b": "conv2.spatial", "c": "conv3.spatial", "shortcut": "shortcut"}

    def place(match: re.Match[str]) -> str:
        return f"stages.conv{match[1]}_x.{match[2]}.{places[match[3]]}."

    renamed = {}
    for name, tensor in image.items():
        name = re.sub(r"^stages\.conv1\.(conv|norm)\.", r"stages.conv1.spatial.\1.", name)
        renamed[re.sub(r"^stages\.res(\d)\.(\d+)\.(a|b|c|shortcut)\.", place, name)] = tensor
    return renamed


def _inflate_one(tensor: Tensor, reference: Tensor, is_factorised: bool) -> Tensor:
    if tensor.dim() != reference.dim() or tensor.dim() == 0:
        return tensor
    if tensor.dim() == 5 and tensor.shape[2] == 1:
        tensor = tensor.expand(-1, -1, reference.shape[2], -1, -1) / reference.shape[2]
        folds, rest = divmod(reference.shape[1], tensor.shape[1])
        if folds > 1 and not rest and len(tensor) == len(reference):
            # The channels of a folded clip are its first channel in every frame, then its second, …
            tensor = tensor.repeat_interleave(folds, 1) / folds
    if is_factorised and tensor.shape[1:] == reference.shape[1:]:
        rows = min(len(tensor), len(reference))
        widened = reference.clone()
        widened[:rows] = tensor[:rows]
        return widened
    return tensor


def average_stem(state: Mapping[str, Tensor], in_channels: int, stem: str) -> dict[str, Tensor]:
    """A stem for another modality: the mean over the input channels, for each new one.

    So starts TSN's flow network (Wang et al. 2016, section 3.3, cross modality pre-training). S3D-G's Table 4 has flow
    networks that start from ImageNet, and does not say how.

    Args:
        state: tensors under the names here.
        in_channels: channels of the new modality.
        stem: name of the stem's kernel.

    Returns:
        The tensors; the normalisation of the colours is replaced by none.
    """
    changed = dict(state)
    kernel = changed[stem].mean(1, keepdim=True)
    changed[stem] = kernel.expand(-1, in_channels, *kernel.shape[2:]).contiguous()
    changed[INPUT[0]], changed[INPUT[1]] = torch.ones(in_channels), torch.zeros(in_channels)
    return changed

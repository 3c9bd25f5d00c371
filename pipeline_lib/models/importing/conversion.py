"""From a public checkpoint's tensors to the state dictionary of a network here; inflation from 2D to 3D."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline_lib.errors import UserError
from pipeline_lib.models.network import VideoNetwork

NameMap = Callable[[str], str | None]
# Entries that a checkpoint may lack: counters that nothing reads, and the normalisation of the input.
OPTIONAL = ("num_batches_tracked", "input_scale", "input_shift")


@dataclass
class Mismatch:
    """Where a checkpoint and a network differ."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)

    def message(self) -> str:
        """Every key on a line, under what is wrong with it."""
        lines: list[str] = []
        for title, keys in (
            ("missing (the network has them, the file does not)", self.missing),
            ("unexpected (the file has them, the network does not)", self.unexpected),
            ("of another shape", self.misshaped),
        ):
            if keys:
                lines += [f"{len(keys)} {title}:", *(f"  {key}" for key in keys)]
        return "\n".join(lines)


def rename(tensors: Mapping[str, Tensor], name_map: NameMap) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the names here, and the names that the map does not know.

    TensorFlow's kernels (…, in, out) are told by the leaf ``weights`` and transposed to PyTorch's (out, in, …).
    """
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        try:
            ours = name_map(name)
        except (KeyError, IndexError):
            unknown.append(name)
            continue
        if ours is None:
            continue
        if name.endswith("/weights") and tensor.dim() in (4, 5):
            axes = range(tensor.dim())
            tensor = tensor.permute(tensor.dim() - 1, tensor.dim() - 2, *axes[:-2])
        renamed[ours] = tensor.contiguous()
    return renamed, unknown


def resolve_last(renamed: Mapping[str, Tensor], network: VideoNetwork) -> dict[str, Tensor]:
    """Replace ``LAST`` in names by the last half of that convolution: ``temporal`` where it is factorised."""
    own = network.state_dict()
    resolved: dict[str, Tensor] = {}
    for name, tensor in renamed.items():
        temporal = name.replace("LAST", "temporal")
        resolved[temporal if temporal in own else name.replace("LAST", "spatial")] = tensor
    return resolved


def fit(
    tensors: Mapping[str, Tensor], network: VideoNetwork, unknown: Iterable[str] = (), *, needs_head: bool = True
) -> dict[str, Tensor]:
    """A complete state dictionary of the network from tensors under its names.

    Args:
        tensors: name → tensor; the dtype becomes the network's.
        network: the network to fill; it is not changed.
        unknown: names that the map does not know, reported with the rest.
        needs_head: False leaves the head out of the result and of the comparison.

    Raises:
        UserError: keys are missing, unexpected or mis-shaped; the message lists them all.
    """
    own = network.state_dict()
    mismatch = Mismatch(unexpected=sorted(unknown))
    state: dict[str, Tensor] = {}
    for name, reference in own.items():
        if not needs_head and name.startswith("head."):
            continue
        if name in tensors:
            given = tensors[name]
            # A Caffe2 classifier and a fully convolutional one differ by axes of length 1 only.
            if given.numel() == reference.numel() and given.squeeze().shape == reference.squeeze().shape:
                given = given.reshape(reference.shape)
            if given.shape != reference.shape:
                mismatch.misshaped.append(f"{name}: {tuple(given.shape)} in the file, {tuple(reference.shape)} here")
            state[name] = given.to(reference.dtype)
        elif name.endswith(OPTIONAL):
            state[name] = reference
        else:
            mismatch.missing.append(name)
    mismatch.unexpected += sorted(set(tensors) - set(own) - {n for n in tensors if n.endswith("num_batches_tracked")})
    if mismatch:
        raise UserError("the checkpoint does not fit the network.\n" + mismatch.message())
    return state


def inflate(tensors: Mapping[str, Tensor], network: VideoNetwork) -> dict[str, Tensor]:
    """Fill a 3D network from a 2D one under the same names, I3D's way (S3D-G, section 4.3).

    A k×k kernel is repeated over the t frames of its 3D kernel and divided by t, so that a clip of equal frames gives
    the image's features away from the clip's ends. Temporal convolutions become the identity (slim's centre
    initialisation). Their normalisations, gates, non-local blocks and the head stay as the network was built. If a
    (2+1)D pair has another width than the 2D layer, as many filters as fit are copied, and the identity joins them. A
    ReLU lies in between, so this is a starting point and not the same function.

    Args:
        tensors: 4-D kernels, vectors of normalisations; names as ``network.state_dict()`` has them.
        network: the 3D network, as built; it is not changed.

    Returns:
        A complete state dictionary, except for the head.

    Raises:
        UserError: keys are missing, unexpected or mis-shaped.
    """
    own = network.state_dict()
    filled: dict[str, Tensor] = dict(tensors)
    for name, reference in own.items():
        if name.startswith("head."):
            filled.pop(name, None)
        elif ".temporal.conv.weight" in name:
            identity = torch.zeros_like(reference)
            shared = torch.arange(min(reference.shape[:2]))
            identity[shared, shared, reference.shape[2] // 2] = 1
            filled[name] = identity
        elif ".temporal." in name or ".gate." in name or ".NonLocal" in name:
            filled[name] = reference
        elif name in tensors:
            filled[name] = _inflate_one(tensors[name], reference)
    return fit(filled, network, needs_head=False)


def _inflate_one(tensor: Tensor, reference: Tensor) -> Tensor:
    if reference.dim() == 5 and tensor.dim() == 4:
        tensor = tensor.unsqueeze(2).expand(-1, -1, reference.shape[2], -1, -1) / reference.shape[2]
    if tensor.shape == reference.shape or tensor.dim() != reference.dim() or tensor.dim() == 0:
        return tensor
    if tensor.shape[2:] != reference.shape[2:]:
        return tensor
    if reference.dim() == 5 and tensor.shape[1] != reference.shape[1] and reference.shape[1] % tensor.shape[1] == 0:
        # R2D folds the frames into channels (R(2+1)D, section 3.1): the same filter for each frame, and their mean.
        folds = reference.shape[1] // tensor.shape[1]
        return tensor.repeat(1, folds, *[1] * 3) / folds if tensor.shape[0] == reference.shape[0] else tensor
    if tensor.shape[1:] == reference.shape[1:]:
        rows = min(len(tensor), len(reference))
        widened = reference.clone()
        widened[:rows] = tensor[:rows]
        return widened
    return tensor


def average_stem(state: Mapping[str, Tensor], in_channels: int, stem: str) -> dict[str, Tensor]:
    """A stem for another modality: the mean over the input channels, for each new one (TSN; flow: D3D, section 5.3).

    Args:
        state: state dictionary or tensors under the names here.
        in_channels: channels of the new modality.
        stem: name of the stem's kernel.
    """
    changed = dict(state)
    kernel = changed[stem].mean(1, keepdim=True)
    changed[stem] = kernel.expand(-1, in_channels, *kernel.shape[2:]).contiguous()
    for name in ("input_scale", "input_shift"):
        changed.pop(name, None)
    return changed

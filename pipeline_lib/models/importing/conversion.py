"""From a public checkpoint's tensors to the state dictionary of a network here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pipeline_lib.errors import UserError
from pipeline_lib.models.importing.names import NameMap
from pipeline_lib.models.network import VideoNetwork

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

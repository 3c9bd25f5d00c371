"""What every video network offers: logits, named endpoints with their shapes, and a description of its input."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.errors import UserError

LOGITS = "logits"


@dataclass(frozen=True)
class ClipInput:
    """Which clips a network takes: float (B, channels, T, H, W) in [-1, 1].

    Attributes:
        channels: 3 for RGB, 2 for flow.
        num_frames: the only T that it takes, or None if it takes any.
        side: the only H and W that it takes, in pixels, or None if it takes any.
        minimum_side: smallest H and W whose features still have a meaning, in pixels.
    """

    channels: int
    num_frames: int | None = None
    side: int | None = None
    minimum_side: int = 16

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ``UserError`` if the network cannot see a clip of this shape."""
        if len(shape) != 5:
            raise UserError(
                f"a clip has five axes (batch, channels, frames, height, width); this one has shape {shape}"
            )
        if shape[1] != self.channels:
            raise UserError(
                f"the network was built for {self.channels} input channels and got a clip with {shape[1]}: "
                "3 is RGB, 2 is flow; set the experiment's modality to what the network was built for"
            )
        if self.num_frames is not None and shape[2] != self.num_frames:
            raise UserError(
                f"the network takes clips of exactly {self.num_frames} frames and got {shape[2]}; "
                f"set its option num_frames to {shape[2]} or sample {self.num_frames} frames"
            )
        if self.side is not None and (shape[3], shape[4]) != (self.side, self.side):
            raise UserError(
                f"the network takes clips of exactly {self.side}×{self.side} pixels and got {shape[3]}×{shape[4]}; "
                f"set its option side to the crop or crop {self.side} pixels"
            )
        if shape[2] < 1 or min(shape[3:]) < self.minimum_side:
            raise UserError(
                f"a clip needs at least one frame of {self.minimum_side}×{self.minimum_side} pixels; got {shape[2]} of "
                f"{shape[3]}×{shape[4]}"
            )


class VideoNetwork(nn.Module, ABC):
    """A network from clips to logits with named activations. A subclass computes them.

    Args:
        endpoints: names of the activations in order; ``logits`` is added as the last.
        input: which clips it takes.
        num_classes: width of the logits.

    Attributes:
        head: from the trunk's output to logits; a training without a classifier replaces it. The subclass sets it after
            the trunk, because weights are drawn in the order of the modules.
        input_scale, input_shift: (C,) buffers; a clip is first mapped to clip · scale + shift. They are 1 and 0 except
            for imported weights that were trained with another normalisation than [-1, 1], which are saved with them.
        added_parts: prefixes of tensor names. The network may start from the weights of a smaller network that lacks
            these tensors; they then keep their random values.
    """

    head: nn.Module

    def __init__(self, endpoints: Iterable[str], input: ClipInput, num_classes: int) -> None:
        super().__init__()
        self.endpoints: tuple[str, ...] = (*endpoints, LOGITS)
        self.input = input
        self.num_classes = num_classes
        self.input_scale: Tensor
        self.input_shift: Tensor
        self.register_buffer("input_scale", torch.ones(input.channels))
        self.register_buffer("input_shift", torch.zeros(input.channels))
        self.added_parts: tuple[str, ...] = ()
        self._rescales = False

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # Weights without these buffers (a plain state dictionary) take clips in [-1, 1].
        ours = dict(self.named_buffers(recurse=False))
        for name, identity in (("input_scale", torch.ones), ("input_shift", torch.zeros)):
            state_dict.setdefault(prefix + name, identity(self.input.channels, dtype=ours[name].dtype))
        super()._load_from_state_dict(state_dict, prefix, *others)
        scale, shift = state_dict[prefix + "input_scale"], state_dict[prefix + "input_shift"]
        self._rescales = not scale.is_meta and bool((scale != 1).any() or (shift != 0).any())

    @abstractmethod
    def compute(self, clip_BCTHW: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Activations of a clip that is checked and normalised; see ``forward_features``.

        Nothing after the deepest of the named endpoints is computed.
        """

    def _prepare(self, clip_BCTHW: Tensor) -> Tensor:
        self.input.check(tuple(clip_BCTHW.shape))
        if self._rescales:
            return clip_BCTHW * self.input_scale.view(-1, 1, 1, 1) + self.input_shift.view(-1, 1, 1, 1)
        return clip_BCTHW

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Logits (B, num_classes) of float clips (B, C, T, H, W).

        Raises:
            UserError: the network does not take clips of this shape.
        """
        return self.compute(self._prepare(clip_BCTHW), (LOGITS,))[LOGITS]

    def check_names(self, names: Iterable[str]) -> list[str]:
        """The names as a list.

        Raises:
            UserError: one of them is not an endpoint of this network; the message lists the endpoints.
        """
        wanted = list(names)
        unknown = sorted(set(wanted) - set(self.endpoints))
        if unknown:
            raise UserError(f"no endpoint {', '.join(unknown)}; this network has {', '.join(self.endpoints)}")
        return wanted

    def forward_features(self, clip_BCTHW: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The named endpoints; nothing after the deepest of them is computed.

        Args:
            clip_BCTHW: float clips.
            names: endpoints; ``logits`` is one.

        Returns:
            Name → activation (B, C', T', H', W'), and logits (B, num_classes), in the network's order.

        Raises:
            UserError: an unknown endpoint, or a clip that does not suit the network.
        """
        wanted = self.check_names(names)
        return self.compute(self._prepare(clip_BCTHW), wanted)

    def forward_endpoints(self, clip_BCTHW: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The named endpoints and ``logits``."""
        return self.forward_features(clip_BCTHW, [*names, LOGITS])

    def endpoint_shapes(
        self, names: Iterable[str] | None = None, num_frames: int | None = None, side: int | None = None
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of endpoints for one clip, without the batch axis, computed without data on the device ``meta``.

        Args:
            names: endpoints; None is all.
            num_frames: frames of the clip; None is what the network takes, or 16.
            side: height and width of the clip in pixels; None is what the network takes, or 32 and more.

        Returns:
            Name → (C', T', H', W'), and (num_classes,) of the logits.

        Raises:
            UserError: an unknown endpoint, or a clip that does not suit the network.
        """
        num_frames = num_frames or self.input.num_frames or 16
        side = side or self.input.side or max(self.input.minimum_side, 32)
        shadow = deepcopy(self).to("meta").eval()
        clip = torch.empty(1, self.input.channels, num_frames, side, side, device="meta")
        with torch.no_grad():
            found = shadow.forward_features(clip, self.endpoints if names is None else names)
        return {name: tuple(activation.shape[1:]) for name, activation in found.items()}


class StagedNetwork(VideoNetwork):
    """A chain of named stages, each an endpoint, and a head.

    Args:
        stages: name → stage, as the papers call them, in order.
        head: from the last stage's (B, C, T, H, W) to logits.
        input: which clips it takes.
        num_classes: width of the logits.
        folds_time: whether the first stage reads the frames as channels of one image.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        head: nn.Module,
        input: ClipInput,
        num_classes: int,
        *,
        folds_time: bool = False,
    ) -> None:
        super().__init__(stages, input, num_classes)
        self.folds_time = folds_time
        self.stages = nn.ModuleDict(stages)
        self.head = head

    def compute(self, clip_BCTHW: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """See ``VideoNetwork.compute``."""
        # R(2+1)D, section 3.1: the frames are read as channels, 3L × H × W.
        x = clip_BCTHW.flatten(1, 2).unsqueeze(2) if self.folds_time else clip_BCTHW
        remaining = set(names)
        found: dict[str, Tensor] = {}
        for name, stage in self.stages.items():
            if not remaining:
                return found
            x = stage(x)
            if name in remaining:
                found[name] = x
                remaining.remove(name)
        if LOGITS in remaining:
            found[LOGITS] = self.head(x)
        return found


class _DeepestReached(Exception):  # noqa: N818
    """Raised when every wanted activation is computed, so that the rest does not run."""


class HookedNetwork(VideoNetwork):
    """Any module that ends in pooled features (B, C), and a head; forward hooks read its submodules.

    Args:
        body: the module, without its own classifier.
        head: from (B, C) to logits.
        endpoints: name of a submodule of ``body`` → function from its output to an activation (B, C', T', H', W'). The
            submodules run in this order, each once.
        input: which clips it takes.
        num_classes: width of the logits.
    """

    def __init__(
        self,
        body: nn.Module,
        head: nn.Module,
        endpoints: Mapping[str, Callable[[Any], Tensor]],
        input: ClipInput,
        num_classes: int,
    ) -> None:
        super().__init__(endpoints, input, num_classes)
        self.body = body
        self.head = head
        self._as_activation = dict(endpoints)

    def compute(self, clip_BCTHW: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """See ``VideoNetwork.compute``."""
        hooked = [name for name in self.endpoints if name in names and name != LOGITS]
        if not hooked:
            return {LOGITS: self.head(self.body(clip_BCTHW))} if names else {}
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                found[name] = self._as_activation[name](output)
                if name == hooked[-1] and LOGITS not in names:
                    raise _DeepestReached

            return hook

        # The hooks exist for one pass only, so that a copied, saved or exported network has none.
        handles = [self.body.get_submodule(name).register_forward_hook(keep(name)) for name in hooked]
        try:
            found[LOGITS] = self.head(self.body(clip_BCTHW))
        except _DeepestReached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return found


def pooled(x: Tensor) -> Tensor:
    """Mean over time and space (B, C) of (B, C, T, H, W); pooled features stay as they are."""
    return x if x.dim() == 2 else F.adaptive_avg_pool3d(x, 1).flatten(1)


class FeatureHead(nn.Module):
    """Global average over time and space: a head without its classifier."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Features (B, C) of (B, C, T, H, W), or of features that the trunk has pooled itself."""
        return pooled(x_BCTHW)


class ProjectionHead(nn.Module):
    """Linear layers with ReLUs between them, from pooled features to an embedding (MoDist, section 4.1: 128 values).

    Args:
        in_features: channels of the features.
        num_outputs: width of the embedding.
        num_hidden: hidden layers.
        hidden_width: their width; None is that of the features.
        normalised: a batch normalisation after every layer, the last one without scale and shift, as in SimCLR's heads
            (Chen et al. 2020). It centres embeddings, so that the pathways do not stay in separate cones.
    """

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        num_hidden: int,
        hidden_width: int | None = None,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        widths = [in_features, *[hidden_width or in_features] * num_hidden, num_outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        # A 3D normalisation on 1×1×1 maps, because that kind is synchronised over processes.
        norms = [nn.BatchNorm3d(c, affine=at < num_hidden) for at, c in enumerate(widths[1:])] if normalised else []
        self.norms = nn.ModuleList(norms)

    def forward(self, features_BC: Tensor) -> Tensor:
        """Embeddings (B, num_outputs), not normalised."""
        x = features_BC
        for position, layer in enumerate(self.layers):
            x = layer(F.relu(x) if position else x)
            if self.norms:
                x = self.norms[position](x[..., None, None, None]).flatten(1)
        return x


class PooledHead(nn.Module):
    """Global average over time and space, dropout, then linear layers with ReLUs between them.

    One layer is the classifier of R(2+1)D (its Table 1) and SlowFast. More make a projection head for contrastive
    learning: MoDist (section 4.1) projects both pathways to 128; its depth is not printed, CVRL's has three hidden
    layers (Qian et al., Spatiotemporal Contrastive Video Representation Learning, section 3.2).

    Args:
        in_features: channels of the last stage.
        num_outputs: width of the logits or of the embedding.
        dropout: probability of dropping a feature, in [0, 1).
        num_hidden: hidden layers, each as wide as the features.
        std: of the initial weights.
    """

    def __init__(
        self, in_features: int, num_outputs: int, dropout: float, num_hidden: int = 0, *, std: float = 0.01
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.ModuleList(nn.Linear(in_features, in_features) for _ in range(num_hidden))
        self.fc = nn.Linear(in_features, num_outputs)
        for layer in (*self.hidden, self.fc):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Logits (B, num_outputs) of features (B, C, T, H, W), or (B, C) where the trunk has pooled them itself."""
        x = self.dropout(pooled(x_BCTHW))
        for layer in self.hidden:
            x = F.relu(layer(x))
        logits: Tensor = self.fc(x)
        return logits

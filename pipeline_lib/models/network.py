"""What every video network offers: logits, named endpoints, and features up to an endpoint."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.errors import UserError

LOGITS = "logits"


class VideoNetwork(nn.Module):
    """A network from clips to logits, as named stages that run one after the other and a head.

    Attributes:
        endpoints: names of the stages in order, as the papers call them, and ``logits`` last. Distillation,
            decoders, detection and Grad-CAM attach to any of them.
        in_channels: channels of a clip (3 for RGB, 2 for flow).
        num_classes: width of the logits.
        num_frames: the only clip length that the network takes, or None if it takes any.
        minimum_side: smallest height and width, in pixels, whose features still have a meaning.
        input_scale, input_shift: (C,) buffers; a clip is first mapped to clip · scale + shift. They are 1 and 0 but
            for imported weights that were trained on another normalisation than [-1, 1], and travel with these.
        added_parts: how the names of those tensors begin that a network has more than the one that it may start from.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        head: nn.Module,
        *,
        in_channels: int,
        num_classes: int,
        num_frames: int | None = None,
        minimum_side: int = 16,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.head = head
        self.endpoints: tuple[str, ...] = (*stages, LOGITS)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.num_frames = num_frames
        self.minimum_side = minimum_side
        self.input_scale: Tensor
        self.input_shift: Tensor
        self.register_buffer("input_scale", torch.ones(in_channels))
        self.register_buffer("input_shift", torch.zeros(in_channels))
        self.added_parts: tuple[str, ...] = ()
        self._rescales = False

    def check(self, clip_BCTHW: Tensor) -> None:
        """Raise ``UserError`` if the network cannot see a clip of this shape."""
        shape = tuple(clip_BCTHW.shape)
        if clip_BCTHW.dim() != 5:
            raise UserError(
                f"a clip has five axes (batch, channels, frames, height, width); this one has shape {shape}"
            )
        if shape[1] != self.in_channels:
            raise UserError(
                f"the network was built for {self.in_channels} input channels and got a clip with {shape[1]}: "
                "3 is RGB, 2 is flow; set the experiment's modality to what the network was built for"
            )
        if self.num_frames is not None and shape[2] != self.num_frames:
            raise UserError(
                f"the network folds exactly {self.num_frames} frames into its first layer and got {shape[2]}; "
                f"set its option num_frames to {shape[2]} or sample {self.num_frames} frames"
            )
        if shape[2] < 1 or min(shape[3:]) < self.minimum_side:
            raise UserError(
                f"a clip needs at least one frame of {self.minimum_side}×{self.minimum_side} pixels; got {shape[2]} of "
                f"{shape[3]}×{shape[4]}"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # Weights that say nothing of their normalisation (a plain state dictionary) take clips as they come.
        ours = dict(self.named_buffers(recurse=False))
        for name, identity in (("input_scale", torch.ones), ("input_shift", torch.zeros)):
            state_dict.setdefault(prefix + name, identity(self.in_channels, dtype=ours[name].dtype))
        super()._load_from_state_dict(state_dict, prefix, *others)
        scale, shift = state_dict[prefix + "input_scale"], state_dict[prefix + "input_shift"]
        self._rescales = not scale.is_meta and bool((scale != 1).any() or (shift != 0).any())

    def prepare(self, clip_BCTHW: Tensor) -> Tensor:
        """Bring a clip to the normalisation of the weights and the form of the first stage."""
        if self._rescales:
            clip_BCTHW = clip_BCTHW * self.input_scale.view(-1, 1, 1, 1) + self.input_shift.view(-1, 1, 1, 1)
        if self.num_frames is not None:
            # R(2+1)D, section 3.1: the frames are read as channels, 3L × H × W.
            return clip_BCTHW.flatten(1, 2).unsqueeze(2)
        return clip_BCTHW

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Logits (B, num_classes) of float clips (B, C, T, H, W).

        Raises:
            UserError: the clip's shape does not suit the network.
        """
        self.check(clip_BCTHW)
        x = self.prepare(clip_BCTHW)
        for stage in self.stages.values():
            x = stage(x)
        logits: Tensor = self.head(x)
        return logits

    def check_names(self, names: Iterable[str]) -> list[str]:
        """The names as a list.

        Raises:
            UserError: one of them is no endpoint of this network; the message lists those that are.
        """
        wanted = list(names)
        unknown = sorted(set(wanted) - set(self.endpoints))
        if unknown:
            raise UserError(f"no endpoint {', '.join(unknown)}; this network has {', '.join(self.endpoints)}")
        return wanted

    def forward_features(self, clip_BCTHW: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The named endpoints; nothing that lies behind the deepest of them is computed.

        Args:
            clip_BCTHW: float clips.
            names: endpoints; ``logits`` is one.

        Returns:
            Name → activation (B, C', T', H', W'), and logits (B, num_classes), in the network's order.

        Raises:
            UserError: an unknown endpoint, or a clip that does not suit the network.
        """
        remaining = set(self.check_names(names))
        self.check(clip_BCTHW)
        found: dict[str, Tensor] = {}
        x = self.prepare(clip_BCTHW)
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

    def forward_endpoints(self, clip_BCTHW: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The named endpoints and, always, ``logits``; see ``forward_features`` for what stops early."""
        return self.forward_features(clip_BCTHW, [*names, LOGITS])

    def set_batch_norm_momentum(self, momentum: float) -> None:
        """Set the weight of a new batch in the running statistics of every batch normalisation."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = momentum


class FeatureHead(nn.Module):
    """Global average over time and space: what is left of a head when the classifier is taken off."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Features (B, C) of (B, C, T, H, W)."""
        return F.adaptive_avg_pool3d(x_BCTHW, 1).flatten(1)


class ProjectionHead(nn.Module):
    """Linear layers with ReLUs between them, from pooled features to an embedding (MoDist, section 4.1: 128 values).

    Args:
        in_features: channels of the features.
        num_outputs: width of the embedding.
        num_hidden: hidden layers, each as wide as the features.
        normalised: a batch normalisation behind every layer, the last one without scale and shift, as SimCLR's heads
            have (Chen et al. 2020): embeddings are then centred, and no pathway keeps to a cone of its own.
    """

    def __init__(self, in_features: int, num_outputs: int, num_hidden: int, normalised: bool = False) -> None:
        super().__init__()
        widths = [in_features] * (num_hidden + 1) + [num_outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        # Of the kind that is synchronised over processes, on features as 1×1×1 maps.
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
    """

    def __init__(self, in_features: int, num_outputs: int, dropout: float, num_hidden: int = 0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.ModuleList(nn.Linear(in_features, in_features) for _ in range(num_hidden))
        self.fc = nn.Linear(in_features, num_outputs)
        for layer in (*self.hidden, self.fc):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Logits (B, num_outputs) of features (B, C, T, H, W)."""
        x = self.dropout(F.adaptive_avg_pool3d(x_BCTHW, 1).flatten(1))
        for layer in self.hidden:
            x = F.relu(layer(x))
        logits: Tensor = self.fc(x)
        return logits

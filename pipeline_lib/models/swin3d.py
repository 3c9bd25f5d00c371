"""Video Swin Transformer, torchvision's own network (Liu et al., "Video Swin Transformer", CVPR 2022)."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models.video.swin_transformer import PatchEmbed3d, SwinTransformer3d

from pipeline_lib.configuration.messages import parsed
from pipeline_lib.models.network import ClipInput, HookedNetwork, PooledHead
from pipeline_lib.models.options import SwinOptions


def channels_first(x_BTHWC: Tensor) -> Tensor:
    """(B, T, H, W, C) → (B, C, T, H, W)."""
    return x_BTHWC.permute(0, 4, 1, 2, 3)


def build(num_classes: int, in_channels: int = 3, **options: Any) -> HookedNetwork:
    """Build a Video Swin Transformer on patches of 2×4×4.

    Args:
        num_classes: width of the logits, ≥ 1.
        in_channels: 3 for RGB, 2 for flow.
        options: see ``SwinOptions``.

    Returns:
        The network; its endpoints are ``patch_embed`` and ``features.0`` … : the stages (even) and the mergings of
        2×2 patches between them (odd).

    Raises:
        UserError: an option is unknown or out of its range.
    """
    given = parsed(SwinOptions, options, "model.options")
    body = SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=given.width,
        depths=list(given.depths),
        num_heads=list(given.num_heads),
        window_size=list(given.window),
        stochastic_depth_prob=given.stochastic_depth,
        num_classes=1,
        patch_embed=partial(PatchEmbed3d, in_channels=in_channels),
    )
    body.head = nn.Identity()  # type: ignore[assignment]
    names = ["patch_embed", *(f"features.{at}" for at in range(len(body.features)))]
    head = PooledHead(body.num_features, num_classes, given.dropout or 0.0, std=0.02)
    return HookedNetwork(body, head, dict.fromkeys(names, channels_first), ClipInput(in_channels), num_classes)

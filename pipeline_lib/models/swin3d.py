"""Video Swin Transformer, torchvision's own network (Liu et al., "Video Swin Transformer", CVPR 2022)."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.models.video.swin_transformer import PatchEmbed3d, SwinTransformer3d

from pipeline_lib.errors import UserError
from pipeline_lib.models.network import ClipInput, HookedNetwork, PooledHead


def channels_first(x_BTHWC: Tensor) -> Tensor:
    """(B, T, H, W, C) → (B, C, T, H, W)."""
    return x_BTHWC.permute(0, 4, 1, 2, 3)


def build(
    num_classes: int,
    in_channels: int = 3,
    *,
    depths: Sequence[int] = (2, 2, 6, 2),
    width: int = 96,
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window: Sequence[int] = (8, 7, 7),
    stochastic_depth: float = 0.1,
    dropout: float = 0.0,
) -> HookedNetwork:
    """Build a Video Swin Transformer on patches of 2×4×4.

    Args:
        num_classes: width of the logits, ≥ 1.
        in_channels: 3 for RGB, 2 for flow.
        depths: blocks of each stage; two blocks or more in all.
        width: channels of the first stage; each later stage doubles them.
        num_heads: attention heads of each stage; they divide its channels.
        window: patches over (T, H, W) that see each other.
        stochastic_depth: probability of leaving out the last block in training; it grows linearly from 0.
        dropout: probability of dropping a feature before the classifier, in [0, 1).

    Returns:
        The network; its endpoints are ``patch_embed`` and ``features.0`` … : the stages (even) and the mergings of
        2×2 patches between them (odd).

    Raises:
        UserError: a value outside its range.
    """
    if num_classes < 1 or in_channels < 1 or width < 1 or len(window) != 3 or min(window) < 1:
        raise UserError("num_classes, in_channels and width must be at least 1, window three numbers of at least 1")
    if sum(depths) < 2 or min(depths) < 1 or len(num_heads) != len(depths):
        raise UserError(f"depths {list(depths)} must be positive, two or more in all, with num_heads for each")
    if any(heads < 1 or width * 2**stage % heads for stage, heads in enumerate(num_heads)):
        raise UserError(f"num_heads {list(num_heads)} must divide the stages' channels, {width} and its doubles")
    if not (0 <= dropout < 1 and 0 <= stochastic_depth < 1):
        raise UserError(f"dropout {dropout} and stochastic_depth {stochastic_depth} must lie in [0, 1)")
    body = SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=width,
        depths=list(depths),
        num_heads=list(num_heads),
        window_size=list(window),
        stochastic_depth_prob=stochastic_depth,
        num_classes=1,
        patch_embed=partial(PatchEmbed3d, in_channels=in_channels),
    )
    body.head = nn.Identity()  # type: ignore[assignment]
    names = ["patch_embed", *(f"features.{at}" for at in range(len(body.features)))]
    head = PooledHead(body.num_features, num_classes, dropout, std=0.02)
    return HookedNetwork(body, head, dict.fromkeys(names, channels_first), ClipInput(in_channels), num_classes)

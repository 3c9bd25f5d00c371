"""MViTv2, torchvision's own network (Li et al., "MViTv2: Improved Multiscale Vision Transformers", CVPR 2022).

Table 1 of that paper by rule: stage s has ``depths[s]`` blocks and 2ˢ times the width and the heads of the first
stage; its first block pools the queries by 2 over space; keys and values are pooled to the last stage's grid.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.video.mvit import MSBlockConfig, MViT

from pipeline_lib.configuration.messages import parsed
from pipeline_lib.models.network import ClipInput, HookedNetwork, PooledHead
from pipeline_lib.models.options import MViTOptions

# Pixels per token over H and W after the first convolution.
PATCH_STRIDE = 4
KERNEL = [3, 3, 3]


def patch_grid(patches_BCTHW: Tensor) -> Tensor:
    """The first convolution's output is a grid already."""
    return patches_BCTHW


def token_grid(output: tuple[Tensor, tuple[int, int, int]]) -> Tensor:
    """(B, C, T, H, W) of a block's output: tokens (B, 1 + T·H·W, C), the class token first, and (T, H, W)."""
    tokens, grid = output
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, *grid)


def block_settings(depths: Sequence[int], width: int, num_heads: int) -> list[MSBlockConfig]:
    """The blocks' table; ``mvit_v2_s`` has depths 1, 2, 11, 2, width 96 and 1 head."""
    settings = []
    for stage, depth in enumerate(depths):
        pooled_keys = 2 ** (len(depths) - 1 - stage)
        for block in range(depth):
            first = stage > 0 and block == 0
            settings.append(
                MSBlockConfig(
                    num_heads=num_heads * 2**stage,
                    input_channels=width * 2 ** (stage - first),
                    output_channels=width * 2**stage,
                    kernel_q=KERNEL,
                    kernel_kv=KERNEL,
                    stride_q=[1, 2, 2] if first else [1, 1, 1],
                    stride_kv=[1, pooled_keys, pooled_keys],
                )
            )
    return settings


def build(num_classes: int, in_channels: int = 3, **options: Any) -> HookedNetwork:
    """Build an MViTv2.

    Args:
        num_classes: width of the logits, ≥ 1.
        in_channels: 3 for RGB, 2 for flow.
        options: see ``MViTOptions``.

    Returns:
        The network; its endpoints are ``conv_proj`` (the patches) and ``blocks.0`` … , without the class token.

    Raises:
        UserError: an option is unknown or out of its range.
    """
    given = parsed(MViTOptions, options, "model.options")
    settings = block_settings(given.depths, given.width, given.num_heads)
    body = MViT(
        (given.side, given.side),
        given.num_frames,
        settings,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        stochastic_depth_prob=given.stochastic_depth,
        num_classes=1,
    )
    if in_channels != 3:
        patches = body.conv_proj
        body.conv_proj = nn.Conv3d(
            in_channels, patches.out_channels, patches.kernel_size, patches.stride, patches.padding
        )
    # The trunk ends in the class token after the last normalisation.
    body.head = nn.Identity()  # type: ignore[assignment]
    endpoints = {"conv_proj": patch_grid} | {f"blocks.{at}": token_grid for at in range(len(settings))}
    head = PooledHead(settings[-1].output_channels, num_classes, given.dropout or 0.0, std=0.02)
    return HookedNetwork(body, head, endpoints, ClipInput(in_channels, given.num_frames, given.side), num_classes)

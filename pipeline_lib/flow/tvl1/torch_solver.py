"""TV-L1 in PyTorch over a batch of pairs: the definition that the fast CPU and GPU kernels are tested against.

The algorithm is OpenCV's CPU version (opencv_contrib, modules/optflow/src/tvl1flow.cpp, its γ = 0), step by step, with
its resizing, its cubic ``remap`` (zero outside) and its median filter. There are two rules for the iterations:
``opencv`` tests each pair's update after every iteration; ``fixed`` does the same number for all, so that nothing waits
for the device.
"""

import torch
import torch.nn.functional as F

from pipeline_lib.configuration.motions import TVL1Parameters
from pipeline_lib.flow.tvl1.parameters import CUBIC_A, FLT_EPSILON, level_sizes


def cubic_weights(offset: torch.Tensor) -> list[torch.Tensor]:
    """Weights of the taps −1 … 2 for offsets in [0, 1): OpenCV's ``interpolateCubic``."""
    a, x, y = CUBIC_A, offset, 1 - offset
    w0 = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    w1 = ((a + 2) * x - (a + 3)) * x * x + 1
    w2 = ((a + 2) * y - (a + 3)) * y * y + 1
    return [w0, w1, w2, 1 - w0 - w1 - w2]


def _linear_axis(size: int, target: int, scale: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Left index and weight of the right neighbour for each of ``target`` half-pixel centres, clamped at the ends."""
    # In double precision, as in cv::resize: single precision gets the weights of a wide image wrong by 1e-5.
    position = ((torch.arange(target, device=device, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    left = torch.floor(position)
    weight = position - left
    weight = torch.where((left < 0) | (left >= size - 1), torch.zeros_like(weight), weight)
    return left.clamp_(0, size - 1).long(), weight


def resize_linear(images: torch.Tensor, size: tuple[int, int], scale: tuple[float, float]) -> torch.Tensor:
    """``cv::resize`` with INTER_LINEAR.

    Args:
        images: float32 (B, C, H, W).
        size: (H, W) of the result.
        scale: source pixels per result pixel, (vertical, horizontal).
    """
    height, width = images.shape[-2:]
    top, down = _linear_axis(height, size[0], scale[0], images.device)
    left, right = _linear_axis(width, size[1], scale[1], images.device)
    a = images[..., left]
    rows = a + (images[..., (left + 1).clamp_max(width - 1)] - a) * right
    b = rows[..., top, :]
    return b + (rows[..., (top + 1).clamp_max(height - 1), :] - b) * down[:, None]


def centred_gradient(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """½(next − previous) along x and y, indices clamped, of (B, 1, H, W)."""
    wide = F.pad(images, (1, 1, 0, 0), mode="replicate")
    high = F.pad(images, (0, 0, 1, 1), mode="replicate")
    return 0.5 * (wide[..., 2:] - wide[..., :-2]), 0.5 * (high[..., 2:, :] - high[..., :-2, :])


def warp_cubic(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """``cv::remap`` with INTER_CUBIC and zero outside: sample (B, C, H, W) at (x + u, y + v) for u of (B, 2, H, W)."""
    batch, channels, height, width = images.shape
    xs = torch.arange(width, device=images.device, dtype=torch.float32) + u[:, 0]
    ys = torch.arange(height, device=images.device, dtype=torch.float32)[:, None] + u[:, 1]
    # Outside everything is zero, so the clamp changes no value; it keeps the integers small.
    xs, ys = xs.clamp(-8, width + 8), ys.clamp(-8, height + 8)
    left, top = torch.floor(xs), torch.floor(ys)
    wx, wy = cubic_weights(xs - left), cubic_weights(ys - top)
    x0, y0 = left.long(), top.long()
    flat = images.reshape(batch, channels, -1)
    result = torch.zeros_like(images)
    for j in range(4):
        y = y0 + (j - 1)
        for i in range(4):
            x = x0 + (i - 1)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).reshape(batch, 1, -1)
            values = flat.gather(2, index.expand(-1, channels, -1)).reshape(batch, channels, height, width)
            result += values * (wy[j] * wx[i] * inside)[:, None]
    return result


def median_5x5(u: torch.Tensor) -> torch.Tensor:
    """``cv::medianBlur(…, 5)``: borders repeated; (B, C, H, W)."""
    height, width = u.shape[-2:]
    wide = F.pad(u, (2, 2, 2, 2), mode="replicate")
    shifted = [wide[..., j : j + height, i : i + width] for j in range(5) for i in range(5)]
    return torch.stack(shifted).median(dim=0).values


def _divergence(px: torch.Tensor, py: torch.Tensor) -> torch.Tensor:
    """px(x, y) − px(x−1, y) + py(x, y) − py(x, y−1); what lies outside counts as 0."""
    return px - F.pad(px, (1, 0))[..., :-1] + py - F.pad(py, (0, 0, 1, 0))[..., :-1, :]


def _forward_gradient(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward differences, 0 in the last column and row."""
    return F.pad(u[..., 1:] - u[..., :-1], (0, 1)), F.pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1))


class _Warped:
    """What stays the same during one warp: warped gradients, their squared norm and the constant part of ρ."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor, u: torch.Tensor) -> None:
        warped = warp_cubic(second, u)
        self.gradient = warped[:, 1:3]
        self.norm = (self.gradient**2).sum(1, keepdim=True)
        self.rho = warped[:, :1] - (self.gradient * u).sum(1, keepdim=True) - first


def _iterate(
    warped: _Warped, u: torch.Tensor, px: torch.Tensor, py: torch.Tensor, parameters: TVL1Parameters
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One primal and one dual step; returns the new u, px and py, each (B, 2, H, W)."""
    limit = parameters.lambda_ * parameters.theta
    rho = warped.rho + (warped.gradient * u).sum(1, keepdim=True)
    bound = limit * warped.norm
    inner = torch.where(warped.norm > FLT_EPSILON, -rho / warped.norm.clamp_min(FLT_EPSILON), torch.zeros_like(rho))
    step = torch.where(rho < -bound, torch.full_like(rho, limit), torch.where(rho > bound, -limit, inner))
    new = u + step * warped.gradient + parameters.theta * _divergence(px, py)
    ux, uy = _forward_gradient(new)
    rate = parameters.tau / parameters.theta
    scale = 1 / (1 + rate * torch.hypot(ux, uy))
    return new, (px + rate * ux) * scale, (py + rate * uy) * scale


def _level_fixed(first: torch.Tensor, second: torch.Tensor, u: torch.Tensor, p: TVL1Parameters) -> torch.Tensor:
    """All warps of one level, the same number of iterations for every pair."""
    px, py = torch.zeros_like(u), torch.zeros_like(u)
    for _ in range(p.num_warps):
        warped = _Warped(first, second, u)
        if p.median_size > 1:
            u = median_5x5(u)
        for _ in range(p.iterations):
            u, px, py = _iterate(warped, u, px, py, p)
    return u


def _level_opencv(first: torch.Tensor, second: torch.Tensor, u: torch.Tensor, p: TVL1Parameters) -> torch.Tensor:
    """All warps of one level; a pair whose update has become small stays as it is."""
    px, py = torch.zeros_like(u), torch.zeros_like(u)
    threshold = p.epsilon**2 * first.shape[-2] * first.shape[-1]
    for _ in range(p.num_warps):
        warped = _Warped(first, second, u)
        active = torch.ones(len(u), 1, 1, 1, dtype=torch.bool, device=u.device)
        for _ in range(p.outer_iterations):
            if not bool(active.any()):
                break
            if p.median_size > 1:
                u = torch.where(active, median_5x5(u), u)
            for _ in range(p.inner_iterations):
                new, new_px, new_py = _iterate(warped, u, px, py, p)
                error = ((new - u) ** 2).sum((1, 2, 3), keepdim=True)
                u = torch.where(active, new, u)
                px, py = torch.where(active, new_px, px), torch.where(active, new_py, py)
                active = active & (error > threshold)
                if not bool(active.any()):
                    break
    return u


def pyramid(frames: torch.Tensor, parameters: TVL1Parameters) -> list[torch.Tensor]:
    """Levels of each frame, the finest first: float32 (N, 3, H, W) of intensity and its gradients along x and y.

    Compute it once per frame: it is the same for the first and for the second frame of a pair.
    """
    height, width = frames.shape[-2:]
    images = frames.float()
    levels = []
    for index, size in enumerate(level_sizes(height, width, parameters)):
        if index:
            images = resize_linear(images, size, (1 / parameters.scale_step,) * 2)
        levels.append(torch.cat([images, *centred_gradient(images)], dim=1))
    return levels


def tvl1_from_pyramids(
    first: list[torch.Tensor], second: list[torch.Tensor], parameters: TVL1Parameters
) -> torch.Tensor:
    """TV-L1 flow of a batch of pairs.

    Args:
        first: ``pyramid`` of B grey frames. Consecutive pairs share their frames' pyramids.
        second: ``pyramid`` of the frames that the flow leads to.
        parameters: ``mode`` chooses the rule for the iterations.

    Returns:
        float32 (B, 2, H, W): (u, v) in pixels.
    """
    level = _level_opencv if parameters.mode == "opencv" else _level_fixed
    u = torch.zeros_like(first[-1][:, :2])
    for index in reversed(range(len(first))):
        size = tuple(first[index].shape[-2:])
        if u.shape[-2:] != first[index].shape[-2:]:
            scale = (u.shape[-2] / size[0], u.shape[-1] / size[1])
            u = resize_linear(u, (size[0], size[1]), scale) * (1 / parameters.scale_step)
        u = level(first[index][:, :1], second[index], u, parameters)
    return u

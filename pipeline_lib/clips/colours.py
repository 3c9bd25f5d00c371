"""Changes of colour: drawn per sample, applied to whole clips on the device.

MoDist (Xiao, Tighe, Modolo, "Modist: Motion distillation for self-supervised video representation learning"),
section 4.1, prints probabilities and ratios, which are keys of a recipe. It does not print the blur's σ; the authors'
release (amazon-science/self-supervised-maclr, slowfast/config/defaults.py, GAUSSIAN_BLUR.SIGMA) has SimCLR's, uniform
in [0.1, 2].
"""

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from pipeline_lib.configuration.training import Colours

SIGMA = (0.1, 2.0)


def draw_colours(random: np.random.Generator, settings: Colours) -> list[float]:
    """Factors of brightness, contrast and saturation (1: unchanged), 1 for grey else 0, σ of the blur (0: none)."""
    uniform = random.random(7)
    ratios = np.array([settings.brightness, settings.contrast, settings.saturation])
    factors = 1.0 + ratios * (2.0 * uniform[1:4] - 1.0) if uniform[0] < settings.jitter else np.ones(3)
    sigma = SIGMA[0] + (SIGMA[1] - SIGMA[0]) * uniform[6] if uniform[5] < settings.blur else 0.0
    return [*(float(factor) for factor in factors), float(uniform[4] < settings.grey), float(sigma)]


def change_colours(clips: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Apply drawn colours; every frame of a clip changes alike.

    Args:
        clips: uint8 (B, T, H, W, 3).
        colours: (B, 5) as from ``draw_colours``, on the CPU.

    Returns:
        uint8 (B, T, H, W, 3).
    """
    changed = []
    for clip, (brightness, contrast, saturation, grey, sigma) in zip(clips, colours.tolist(), strict=True):
        frames = clip.permute(0, 3, 1, 2)
        if brightness != 1.0:
            frames = transforms.adjust_brightness(frames, brightness)
        if contrast != 1.0:
            frames = transforms.adjust_contrast(frames, contrast)
        if saturation != 1.0:
            frames = transforms.adjust_saturation(frames, saturation)
        if grey:
            frames = transforms.rgb_to_grayscale(frames, num_output_channels=3)
        if sigma > 0:
            # Three σ to each side hold 99.7 % of the kernel.
            size = 2 * int(np.ceil(3 * sigma)) + 1
            size = min(size, 2 * ((min(frames.shape[-2:]) - 1) // 2) + 1)
            frames = transforms.gaussian_blur(frames, [size, size], [sigma, sigma])
        changed.append(frames.permute(0, 2, 3, 1))
    return torch.stack(changed)

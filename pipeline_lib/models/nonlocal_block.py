"""The non-local block that D3D's supplement (section 4) adds to S3D-G."""

import torch.nn.functional as F
from torch import Tensor, nn


class NonLocal(nn.Module):
    """x + W · softmax(θ(x)ᵀ φ(x)) g(x) over all positions in time and space (embedded Gaussian).

    Wang et al., Non-local Neural Networks, section 3.3, with the supplement's two differences: no batch normalisation
    inside, and no sub-sampling of φ and g. The inner width is half the input's. The last layer starts at zero, so that
    the block starts as the identity (Wang et al., section 4.1, start its normalisation's scale at zero for the same
    reason). The scores are not divided by √channels, as in the original embedded Gaussian.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.output = nn.Conv3d(inner, channels, 1)
        for layer in (self.theta, self.phi, self.g):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Attend (B, C, T, H, W) → same shape."""
        query = self.theta(x_BCTHW).flatten(2).transpose(1, 2)
        key = self.phi(x_BCTHW).flatten(2).transpose(1, 2)
        value = self.g(x_BCTHW).flatten(2).transpose(1, 2)
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        back = attended.transpose(1, 2).reshape(x_BCTHW.shape[0], -1, *x_BCTHW.shape[2:])
        output: Tensor = x_BCTHW + self.output(back)
        return output

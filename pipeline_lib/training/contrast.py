"""Instance contrast: InfoNCE against memory banks that know which video each negative came from (MoDist §3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMPTY = -1
"""Video index of a bank's row that has not been filled yet."""


def info_nce(
    queries: Tensor, keys: Tensor, negatives: Tensor, allowed: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """InfoNCE of MoDist's equation 1, averaged over the batch.

    Args:
        queries: (B, D) float, L2-normalised; gradients flow here.
        keys: (B, D) float, L2-normalised; the positive of each query. No gradient flows into them.
        negatives: (N, D) float, L2-normalised rows of a memory bank.
        allowed: (B, N) bool, False where a negative must not count (its own video, a row not filled yet).
        temperature: τ > 0; the paper's value is 0.1.
        weights: optional (B,) float ≥ 0, weight of each query in the mean.

    Returns:
        A scalar. A query without any allowed negative contributes zero.
    """
    positive = (queries * keys.detach()).sum(dim=1, keepdim=True)
    negative = (queries @ negatives.detach().T).masked_fill(~allowed, float("-inf"))
    logits = torch.cat([positive, negative], dim=1) / temperature
    losses = torch.logsumexp(logits, dim=1) - logits[:, 0]
    if weights is None:
        return losses.mean()
    return (losses * weights).sum() / weights.sum().clamp_min(1e-12)


class MemoryBank(nn.Module):
    """A ring of momentum embeddings with the index of the video that each came from.

    Rows not filled yet are masked rather than waited for: a data set smaller than the bank (any trial run)
    would never fill it, and the first steps lose nothing but negatives.

    Args:
        size: number of rows; the paper keeps 65,536.
        dimension: D of the embeddings; the paper projects to 128.
    """

    embeddings: Tensor
    video_index: Tensor
    cursor: Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a memory bank of {size} rows")
        self.register_buffer("embeddings", torch.zeros(size, dimension))
        self.register_buffer("video_index", torch.full((size,), EMPTY, dtype=torch.int64))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    def allowed(self, video_index: Tensor) -> Tensor:
        """(B, size) bool: which rows are negatives for queries of the videos ``video_index`` (B,) int64."""
        filled = self.video_index != EMPTY
        other = self.video_index[None, :] != video_index[:, None]
        return filled[None, :] & other

    @torch.no_grad()
    def enqueue(self, keys: Tensor, video_index: Tensor) -> None:
        """Overwrite the oldest rows with ``keys`` (B, D) of the videos ``video_index`` (B,) int64.

        The caller gathers keys over all ranks first, so that every rank's bank stays equal. A batch larger than the
        bank leaves its last rows in it.
        """
        size = self.embeddings.shape[0]
        keys, video_index = keys[-size:], video_index[-size:]
        rows = (self.cursor + torch.arange(keys.shape[0], device=keys.device)) % size
        self.embeddings[rows] = keys.to(self.embeddings.dtype)
        self.video_index[rows] = video_index
        self.cursor.copy_((self.cursor + keys.shape[0]) % size)


@torch.no_grad()
def update_momentum(online: nn.Module, momentum: nn.Module, coefficient: float) -> None:
    """θ′ ← λθ′ + (1 − λ)θ over the parameters.

    Buffers stay the momentum network's own: its batch normalisation runs on the keys, as MoCo's does.

    Args:
        online: the network that the optimiser trains.
        momentum: its slow copy, of the same structure.
        coefficient: λ; the paper's value is 0.999.
    """
    slow: list[Tensor] = list(momentum.parameters())
    torch._foreach_lerp_(slow, [p.detach() for p in online.parameters()], 1.0 - coefficient)


def embed(features: Tensor) -> Tensor:
    """Scale (B, D) embeddings to unit length, in float32."""
    return F.normalize(features.float(), dim=1)

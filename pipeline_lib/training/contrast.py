"""InfoNCE against memory banks that know which video each negative came from (MoDist, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMPTY = -1
"""Video index of a bank's row that has not been filled yet."""

NUM_NEIGHBOURS, VOTE_TEMPERATURE = 20, 0.07
"""Of the k-NN monitor; the weighting is that of Wu et al. 2018 (Instance Discrimination, section 3.4)."""


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
    labels: Tensor
    cursor: Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a memory bank of {size} rows")
        self.register_buffer("embeddings", torch.zeros(size, dimension))
        self.register_buffer("video_index", torch.full((size,), EMPTY, dtype=torch.int64))
        self.register_buffer("labels", torch.full((size,), EMPTY, dtype=torch.int64))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    def allowed(self, video_index: Tensor) -> Tensor:
        """(B, size) bool: which rows are negatives for queries of the videos ``video_index`` (B,) int64."""
        filled = self.video_index != EMPTY
        other = self.video_index[None, :] != video_index[:, None]
        return filled[None, :] & other

    @torch.no_grad()
    def enqueue(self, keys: Tensor, video_index: Tensor, labels: Tensor | None = None) -> None:
        """Overwrite the oldest rows with ``keys`` (B, D) of the videos ``video_index`` (B,) int64.

        ``labels`` (B,) int64 are the videos' classes, which nothing but ``vote`` reads.

        The caller gathers keys over all ranks first, so that every rank's bank stays equal. A batch larger than the
        bank leaves its last rows in it.
        """
        size = self.embeddings.shape[0]
        keys, video_index = keys[-size:], video_index[-size:]
        rows = (self.cursor + torch.arange(keys.shape[0], device=keys.device)) % size
        self.embeddings[rows] = keys.to(self.embeddings.dtype)
        self.video_index[rows] = video_index
        self.labels[rows] = EMPTY if labels is None else labels[-size:]
        self.cursor.copy_((self.cursor + keys.shape[0]) % size)


@torch.no_grad()
def vote(bank: MemoryBank, queries: Tensor, video_index: Tensor) -> Tensor:
    """The class that a bank's rows give each query: the k-NN monitor of a training that learns from no label.

    The ``NUM_NEIGHBOURS`` most similar rows of other videos vote, each with the weight exp(cosine / 0.07).

    Args:
        bank: whose rows carry labels.
        queries: (B, D), L2-normalised.
        video_index: (B,) int64, of the queries.

    Returns:
        (B,) int64; ``EMPTY`` where no row may vote.
    """
    similarity = (queries.detach() @ bank.embeddings.T).masked_fill(~bank.allowed(video_index), float("-inf"))
    nearest = similarity.topk(min(NUM_NEIGHBOURS, similarity.shape[1]), dim=1)
    # Cosines reach 1: weights relative to the largest cannot overflow, and rows that may not vote weigh nothing.
    weights = torch.exp((nearest.values - 1.0) / VOTE_TEMPERATURE)
    votes = bank.labels[nearest.indices]
    same = votes[:, :, None] == votes[:, None, :]
    strength = torch.where(same, weights[:, None, :], weights.new_zeros(())).sum(dim=2)
    strength = strength.masked_fill(weights == 0.0, -1.0)
    best = strength.argmax(dim=1, keepdim=True)
    winner = votes.gather(1, best).squeeze(1)
    return torch.where(weights.amax(dim=1) > 0.0, winner, torch.full_like(winner, EMPTY))


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

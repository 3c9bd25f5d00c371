"""InfoNCE against memory banks that know which video each negative came from (MoDist, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMPTY = -1
"""Video index of a bank's empty row."""

NUM_NEIGHBOURS, VOTE_TEMPERATURE = 20, 0.07
"""Constants of the k-NN monitor; the weighting is that of Wu et al. 2018 (Instance Discrimination, section 3.4)."""


def info_nce(
    queries: Tensor, keys: Tensor, negatives: Tensor, allowed: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """InfoNCE of MoDist's equation 1, averaged over the batch.

    Args:
        queries: (B, D) float, L2-normalised; gradients flow here.
        keys: (B, D) float, L2-normalised; the positive of each query. No gradient flows into them.
        negatives: (N, D) float, L2-normalised rows of a memory bank.
        allowed: (B, N) bool, False where a negative must not count (the query's own video, an empty row).
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

    Empty rows are masked. Waiting until the bank is full would never end for a data set that is smaller than the bank,
    as in every trial; the first steps only have fewer negatives.

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

        ``labels`` (B,) int64 are the videos' labels, which only ``vote`` reads.

        The caller gathers the keys of all ranks first, so that all banks are equal. Of a batch larger than the bank the
        last rows remain.
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
    """The label that a bank's rows give each query: the k-NN monitor of a training without labels.

    The ``NUM_NEIGHBOURS`` most similar rows of other videos vote, each with the weight exp(cosine / 0.07).

    Args:
        bank: its rows carry labels.
        queries: (B, D), L2-normalised.
        video_index: (B,) int64, of the queries.

    Returns:
        (B,) int64; ``EMPTY`` if no row may vote.
    """
    similarity = (queries.detach() @ bank.embeddings.T).masked_fill(~bank.allowed(video_index), float("-inf"))
    nearest = similarity.topk(min(NUM_NEIGHBOURS, similarity.shape[1]), dim=1)
    # Weights relative to the largest (cosine 1) cannot overflow; rows that may not vote have the weight 0.
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
    """θ′ ← m θ′ + (1 − m) θ over the parameters; MoDist calls m λ.

    The momentum network keeps its own buffers, because its batch normalisation sees the keys, as in MoCo.

    Args:
        online: the network that the optimiser trains.
        momentum: its slow copy, of the same structure.
        coefficient: m, the momentum; the paper's value is 0.999.
    """
    slow: list[Tensor] = list(momentum.parameters())
    torch._foreach_lerp_(slow, [p.detach() for p in online.parameters()], 1.0 - coefficient)


def embed(features: Tensor) -> Tensor:
    """Scale (B, D) embeddings to unit length, in float32."""
    return F.normalize(features.float(), dim=1)

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline_lib.training.contrast import EMPTY, MemoryBank, embed, info_nce, update_momentum, vote


def numpy_info_nce(q: np.ndarray, k: np.ndarray, n: np.ndarray, allowed: np.ndarray, tau: float) -> float:
    losses = []
    for i in range(len(q)):
        positive = np.exp(q[i] @ k[i] / tau)
        negative = sum(np.exp(q[i] @ n[j] / tau) for j in range(len(n)) if allowed[i, j])
        losses.append(-np.log(positive / (positive + negative)))
    return float(np.mean(losses))


@given(
    st.integers(1, 5), st.integers(0, 12), st.integers(1, 6), st.floats(0.05, 2.0), st.integers(0, 2**31), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_info_nce_equals_the_equation(
    batch: int, num_negatives: int, dimension: int, tau: float, seed: int, mask: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, n = (
        embed(torch.randn(rows, dimension, generator=generator)).double() for rows in (batch, batch, num_negatives)
    )
    allowed = torch.rand(batch, num_negatives, generator=generator) > (0.4 if mask else -1.0)
    expected = numpy_info_nce(q.numpy(), k.numpy(), n.numpy(), allowed.numpy(), tau)
    assert info_nce(q, k, n, allowed, tau).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_gradient_reaches_queries_only_and_masked_negatives_do_not_matter() -> None:
    torch.manual_seed(0)
    q, k, n = (embed(torch.randn(rows, 8)).requires_grad_() for rows in (3, 3, 5))
    allowed = torch.ones(3, 5, dtype=torch.bool)
    allowed[:, 4] = False
    info_nce(q, k, n, allowed, 0.1).backward()
    assert q.grad is not None and q.grad.abs().sum() > 0
    assert k.grad is None and n.grad is None
    with torch.no_grad():
        assert torch.equal(info_nce(q, k, n, allowed, 0.1), info_nce(q, k, n[:4], allowed[:, :4], 0.1))


@given(st.integers(1, 7), st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_bank_is_a_ring_of_the_newest(size: int, batches: list[int]) -> None:
    bank = MemoryBank(size, 2)
    seen: list[int] = []
    for batch in batches:
        new = list(range(len(seen), len(seen) + batch))
        seen += new
        index = torch.tensor(new)
        bank.enqueue(torch.stack([index, -index], dim=1).float(), index)
    reference = set(seen[-size:])
    filled = bank.video_index[bank.video_index != EMPTY]
    assert set(filled.tolist()) == reference
    assert len(filled) == len(reference)
    assert torch.equal(bank.embeddings[bank.video_index != EMPTY][:, 0].long(), filled)


def test_rows_of_the_same_video_and_empty_rows_are_no_negatives() -> None:
    bank = MemoryBank(5, 2)
    bank.enqueue(torch.ones(3, 2), torch.tensor([4, 7, 4]))
    assert bank.allowed(torch.tensor([4, 7, 9])).tolist() == [
        [False, True, False, False, False],
        [True, False, True, False, False],
        [True, True, True, False, False],
    ]


def test_momentum_is_the_moving_average() -> None:
    torch.manual_seed(0)
    online, momentum = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    online(torch.randn(8, 3))
    before = {name: value.clone() for name, value in momentum.state_dict().items()}
    update_momentum(online, momentum, 0.75)
    for name, value in momentum.named_parameters():
        torch.testing.assert_close(value.detach(), 0.75 * before[name] + 0.25 * online.state_dict()[name])
    assert torch.equal(momentum[1].running_mean, before["1.running_mean"])


@given(st.integers(1, 40), st.integers(0, 30), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_monitor_votes_as_the_nearest_rows_of_other_videos_do(size: int, filled: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    bank = MemoryBank(size, 4)
    keys = embed(torch.randn(filled, 4, generator=generator))
    videos = torch.randint(0, 12, (filled,), generator=generator)
    bank.enqueue(keys, videos, videos % 3)
    queries, own = embed(torch.randn(5, 4, generator=generator)), torch.arange(5)
    rows = list(zip(keys.double().numpy(), videos.tolist(), strict=True))[-size:]
    expected = []
    for query, video in zip(queries.double().numpy(), own.tolist(), strict=True):
        others = sorted(((query @ key, other % 3) for key, other in rows if other != video), reverse=True)[:20]
        votes = {label: sum(np.exp(c / 0.07) for c, own in others if own == label) for _, label in others}
        expected.append(max(votes, key=lambda label: votes[label]) if votes else EMPTY)
    assert vote(bank, queries, own).tolist() == expected

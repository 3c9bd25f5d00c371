"""Normalisations that several processes share: which kind runs where, and back to plain ones for one process alone."""

import pytest
import torch
from torch import nn

from pipeline_lib.training.batch_norm import SynchronisedBatchNorm3d, separate, synchronise


@pytest.mark.parametrize(("device", "kind"), [("cpu", SynchronisedBatchNorm3d), ("cuda", nn.SyncBatchNorm)])
def test_synchronised_norms_hold_the_same_tensors_and_can_be_undone(device, kind):
    network = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Sequential(nn.BatchNorm3d(4, eps=0.01, momentum=0.3)))
    network.eval()
    before = network.state_dict(keep_vars=True)
    clip = torch.randn(2, 3, 2, 4, 4)
    expected = network(clip)
    for change, found in (
        (lambda: synchronise(network, torch.device(device)), kind),
        (lambda: separate(network), None),
    ):
        change()
        norm = network[1][0]
        assert type(norm) is (found or nn.BatchNorm3d)
        assert (norm.eps, norm.momentum, norm.training) == (0.01, 0.3, False)
        after = network.state_dict(keep_vars=True)
        assert before.keys() == after.keys()
        assert all(after[name] is tensor for name, tensor in before.items())
    assert torch.equal(network(clip), expected)

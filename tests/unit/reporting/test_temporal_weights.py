"""Weights by their offset in time: the closed forms of fresh networks, known quantiles, and the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import small
from small_tree import make_run, make_tree, training_specification

from pipeline_lib.__main__ import main
from pipeline_lib.errors import UserError
from pipeline_lib.models.inflation import inflate
from pipeline_lib.reporting.temporal_weights import temporal_weights


def test_a_fresh_separable_layer_is_the_identity_at_offset_0() -> None:
    found = {entry.layer: entry for entry in temporal_weights(small("s3d_paper").state_dict())}
    temporal = [entry for name, entry in found.items() if name.endswith("temporal") and "Mixed" in name]
    assert len(temporal) == 4 * 9
    tensors = small("s3d_paper").state_dict()
    for entry in temporal:
        width = len(tensors[f"stages.{entry.layer}.conv.weight"])
        assert entry.offsets == (-1, 0, 1)
        # One weight of each row is 1, all others are 0.
        np.testing.assert_allclose(entry.spread, [0, width**-0.5, 0])


def test_an_inflated_network_has_equal_weights_at_all_offsets() -> None:
    network = small("i3d")
    image = {name: t.mean(2, keepdim=True) if t.dim() == 5 else t for name, t in network.state_dict().items()}
    for entry in temporal_weights(inflate(image, network)):
        np.testing.assert_allclose(entry.quantiles, np.broadcast_to(entry.quantiles[0], entry.quantiles.shape))
        assert entry.spread.min() > 0


def test_quantiles_are_those_of_the_raw_weights() -> None:
    kernel = torch.zeros(1, 1001, 3, 1, 1)
    kernel[0, :, 0, 0, 0] = torch.linspace(-1, 1, 1001)
    kernel[0, :, 2, 0, 0] = 0.5
    (entry,) = temporal_weights({"res2.conv.weight": kernel, "flat.weight": torch.ones(2, 2, 1, 3, 3)})
    assert entry.layer == "res2"
    np.testing.assert_allclose(entry.quantiles[0], [-0.95, -0.5, 0, 0.5, 0.95], atol=1e-6)
    np.testing.assert_allclose(entry.quantiles[1:], [[0] * 5, [0.5] * 5])
    with pytest.raises(UserError, match="no convolution over time"):
        temporal_weights({"flat.weight": torch.ones(2, 2, 1, 3, 3)})


def test_the_command_draws_layers_of_a_training_or_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_tree(tmp_path / "output")
    make_run(layout, training_specification("student"))
    command = ["figure", "temporal-weights", "student", "--root", str(layout.root)]
    assert main([*command, "--out", str(tmp_path / "x.svg")]) == 0
    table = capsys.readouterr().out
    text = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert "offset in time, frames" in text and "student" in text and text.count("Branch_") == 3
    weights = str(layout.weights("student", "1", "0"))
    layer = next(line.split()[0] for line in table.splitlines() if line.startswith("Mixed_4c"))
    for name in ("a.png", "b.png"):
        out = ["--layers", layer, "--out", str(tmp_path / name)]
        assert main(["figure", "temporal-weights", weights, *out]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert main([*command, "--layers", "Mixed_9z", "--out", str(tmp_path / "c.png")]) == 2
    assert "no convolution over time called `Mixed_9z`" in capsys.readouterr().err

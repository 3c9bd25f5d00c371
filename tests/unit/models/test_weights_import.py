"""``weights import`` and ``weights list``: what fits, what does not, and where a file is looked for."""

from pathlib import Path

import pytest
import torch
import torchvision
from small_networks import built

from pipeline_lib.__main__ import main
from pipeline_lib.errors import UserError
from pipeline_lib.models.importing.conversion import fit
from pipeline_lib.models.importing.sources import SOURCES
from pipeline_lib.training.networks import initialise
from pipeline_lib.training.weights import load_metadata, load_weights


def test_addresses_and_normalisations_are_torchvisions() -> None:
    for name, source in SOURCES.items():
        if source.torchvision is not None:
            weights = next(iter(torchvision.models.get_model_weights(source.torchvision)))
            assert source.url == weights.url, name


def test_a_mismatch_lists_every_key() -> None:
    network = built("r3d_18", width=8)
    tensors = dict(network.state_dict())
    del tensors["stages.conv1.spatial.conv.weight"]
    tensors["head.fc.weight"] = torch.zeros(5, 7)
    tensors["stages.conv9.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as caught:
        fit(tensors, network, ["optimiser.state"])
    text = str(caught.value)
    assert "1 missing" in text
    assert "stages.conv1.spatial.conv.weight" in text
    assert "2 unexpected" in text
    assert "optimiser.state" in text
    assert "stages.conv9.weight" in text
    assert "head.fc.weight: (5, 7) in the file, (5, 64) here" in text


def test_weights_of_another_network_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r3d.pth"
    torch.save(torchvision.models.video.r3d_18(weights=None).state_dict(), file)
    out = tmp_path / "out.safetensors"
    assert main(["weights", "import", "torchvision/mc3_18", str(file), "--out", str(out)]) == 2
    assert "stages.conv3_x.0.conv1.spatial.conv.weight: (128, 64, 3, 3, 3)" in capsys.readouterr().err
    assert main(["weights", "import", "torchvision/s3d", str(file), "--out", str(out)]) == 2
    assert main(["weights", "import", "torchvision/mc3_18", str(file), "--out", str(out), "--model", "s3dg_slim"]) == 2
    assert main(["weights", "import", "nowhere/x", str(file), "--out", str(out)]) == 2
    assert not out.exists()


def test_imported_weights_start_an_experiment(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.video.mc3_18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "mc3.pth")
    root = tmp_path / "output"
    command = ["weights", "import", "torchvision/mc3_18", str(tmp_path / "mc3.pth"), "--root", str(root)]
    assert main(command) == 0
    out = root / "imported" / "torchvision" / "mc3_18.safetensors"
    first = out.read_bytes()
    metadata = load_metadata(out)
    assert metadata["model"] == {"name": "torchvision/mc3_18", "options": {}}
    assert metadata["classes"][0] == "abseiling"
    assert len(metadata["classes"]) == metadata["num_classes"] == 400
    network = built("mc3_18", 8)
    assert initialise(network, out) == ["head.fc.bias", "head.fc.weight"]
    tensors, _ = load_weights(out)
    assert torch.equal(
        network.stages["conv3_x"][0].conv1.spatial.conv.weight, tensors["stages.conv3_x.0.conv1.spatial.conv.weight"]
    )
    assert network._rescales
    assert main(command) == 0
    assert out.read_bytes() == first


def test_offline_names_the_file_and_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "import", "torchvision/s3d", "--offline", "--root", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "https://download.pytorch.org/models/s3d-d76dad2f.pth" in message
    assert str(tmp_path / "imported" / "downloads" / "s3d-d76dad2f.pth") in message
    assert main(["weights", "import", "slim/s3dg", "--offline", "--root", str(tmp_path)]) == 2
    assert "d3dhelper" in capsys.readouterr().err


def test_a_file_at_its_place_needs_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "imported" / "downloads" / "s3d-d76dad2f.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"not the real one")
    assert main(["weights", "import", "torchvision/s3d", "--offline", "--root", str(tmp_path)]) == 2
    assert "truncated or altered" in capsys.readouterr().err


def test_sources_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SOURCES)

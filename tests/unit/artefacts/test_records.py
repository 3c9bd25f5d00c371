"""What artefacts and their sidecars say of how they were made."""

import json
import socket
from pathlib import Path

import torch
from pipeline_lib.artefacts.provenance import Sidecar, manifest_record, provenance, sidecar_path, torch_versions


def test_versions_name_cuda_where_it_computes() -> None:
    assert torch_versions("cpu") == {"torch": str(torch.__version__)}
    assert torch_versions("cuda") == {
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def test_a_record_names_the_manifest_by_digest_and_counts(tmp_path: Path) -> None:
    summary = tmp_path / "ucf101/summary.json"
    assert manifest_record(summary) == {}
    summary.parent.mkdir()
    summary.write_text(json.dumps({"digest": "a" * 64, "status": {"accepted": 3, "missing": 1}, "classes": []}))
    assert manifest_record(summary) == {
        "dataset": "ucf101",
        "digest": "a" * 64,
        "counts": {"accepted": 3, "missing": 1},
    }


def test_host_and_times_are_in_the_sidecar_alone(tmp_path: Path) -> None:
    record = provenance("test", ["pipeline_lib.artefacts.digest"], {"rate": 1}, {"clips": "c"}, {"torch": "2"})
    assert set(record) == {
        "stage", "library", "python", "code", "parameters", "inputs", "versions", "digest",
    }  # fmt: skip
    Sidecar().write(tmp_path / "weights.safetensors", {"videos": 3})
    told = json.loads(sidecar_path(tmp_path / "weights.safetensors").read_text())
    assert told["host"] == socket.gethostname() and told["figures"] == {"videos": 3}
    assert told["seconds"] >= 0 and told["started"] <= told["finished"]
    assert ("gpu" in told) == torch.cuda.is_available()

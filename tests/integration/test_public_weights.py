"""An experiment that starts from public weights, through Snakemake."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from small_project import Project

from pipeline_lib.models.catalogue import resolve
from pipeline_lib.models.slow_resnet import build

EXPERIMENT = """
experiments:
  from_public:
    description: S3D from torchvision's weights
    stage: finetune
    dataset: generated_transfer
    frame_format: short64_native
    model: {name: torchvision/s3d}
    recipe: demo_finetune
    # So small that the trained network still shows what it started from.
    recipe_changes:
      {steps: 1, global_batch: 2, reestimate_batch_norm: 0, schedule: {base_rate: 1.0e-9, milestones: []},
       sampling: {num_frames: 16, crop: 48, short_side: [48, 48]}}
    start: torchvision/s3d
    protocols: [two_clips]
"""


@pytest.fixture
def public(sources: Project, tmp_path: Path) -> Project:
    """The small project with an experiment that starts from torchvision's S3D."""
    project = sources.copy(tmp_path / "project")
    small = project.folder / "small.yaml"
    small.write_text(small.read_text().replace("\nexperiments:\n", EXPERIMENT, 1))
    return project


def test_without_network_the_message_names_the_file_and_its_place(
    public: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    outcome = public.run("output/imported/torchvision/s3d.safetensors")
    assert outcome.status != 0
    message = outcome.text[outcome.text.index("could not be fetched") :]
    assert "s3d-d76dad2f.pth" in message and "output/imported/downloads/s3d-d76dad2f.pth" in message
    assert "python -m pipeline_lib weights import torchvision/s3d" in message
    assert "Traceback" not in outcome.text
    assert "the same command goes on from here" in outcome.text
    assert not (public.output / "imported/torchvision/s3d.safetensors").exists()


def test_without_network_a_target_is_refused_before_anything_runs(
    public: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    dry = public.run("from_public", options=("--dry-run",))
    assert dry.status == 0, dry.text
    assert dry.text.count("warning: experiments.from_public.start") == 1
    outcome = public.run("from_public")
    assert outcome.status != 0 and not outcome.jobs
    message = outcome.text[outcome.text.index("error: ") :]
    assert "download.pytorch.org cannot be reached" in message and "Traceback" not in outcome.text
    assert "https://download.pytorch.org/models/s3d-d76dad2f.pth" in message
    assert "python -m pipeline_lib weights import torchvision/s3d FILE" in message
    # What needs no public weights runs.
    assert public.run("demo", options=("--dry-run",)).status == 0


def pyslowfast_name(name: str) -> str:
    """Our name of a tensor of ``modist_r50`` → PySlowFast's (its resnet_helper.py and stem_helper.py)."""
    if name.startswith("head.fc."):
        return "head.projection." + name.rpartition(".")[2]
    parts = name.removeprefix("stages.").split(".")
    if parts[0] == "conv1":
        return f"s1.pathway0_stem.{ {'conv': 'conv', 'norm': 'bn'}[parts[1]] }.{parts[2]}"
    stage, block, place, kind, leaf = parts
    where = "branch1" if place == "shortcut" else f"branch2.{place}"
    return f"s{stage[-1]}.pathway0_res{block}.{where}{'_bn' if kind == 'norm' else ''}.{leaf}"


def test_a_file_that_was_put_at_its_place_is_imported_by_its_rule(
    public: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the message asks for, done: no network is used, and a file that is not what its name says is refused."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    torch.manual_seed(3)
    ours = build(7, 3, **resolve("modist_r50")[1]).state_dict()
    ours = {name: torch.randn_like(t) for name, t in ours.items() if t.dim() and not name.startswith("input_")}
    downloads = public.output / "imported/downloads"
    downloads.mkdir(parents=True)
    theirs = {"encoder_q." + pyslowfast_name(name): tensor for name, tensor in ours.items()}
    torch.save({"model_state": theirs, "epoch": 1}, downloads / "maclr.pyth")
    (downloads / "s3d-d76dad2f.pth").write_bytes((downloads / "maclr.pyth").read_bytes()[:100_000])
    wanted = ["output/imported/maclr/slow_r50.safetensors", "output/imported/torchvision/s3d.safetensors"]
    outcome = public.run(*wanted, options=("--keep-going",))
    assert outcome.status != 0 and outcome.jobs["import_weights"] == 2
    assert "its name says d76dad2f: it is truncated or altered" in outcome.text
    assert not (public.folder / wanted[1]).exists()
    imported = load_file(public.folder / wanted[0])
    learnt = {name for name in imported if not name.endswith("num_batches_tracked")}
    assert learnt == {*ours, "input_scale", "input_shift"}
    assert all(torch.equal(imported[name], tensor) for name, tensor in ours.items())


def test_training_starts_from_weights_that_were_imported_from_a_file(public: Project) -> None:
    torch.manual_seed(7)
    theirs = torchvision.models.video.s3d(weights=None).state_dict()
    torch.save(theirs, public.folder / "mine.pth")
    command = [sys.executable, "-m", "pipeline_lib", "weights", "import", "torchvision/s3d", "mine.pth"]
    subprocess.run(command, cwd=public.folder, check=True, capture_output=True)
    outcome = public.succeed("output/experiments/from_public/1-0/weights.safetensors")
    assert outcome.jobs["import_weights"] == 0 and outcome.jobs["finetune"] == 1
    imported = load_file(public.output / "imported/torchvision/s3d.safetensors")
    trained = load_file(public.output / "experiments/from_public/1-0/weights.safetensors")
    kernels = [name for name, tensor in trained.items() if tensor.dim() == 5 and tensor.shape == imported[name].shape]
    # Every convolution but the classifier, whose six classes are new.
    assert len(kernels) == sum(tensor.dim() == 5 for tensor in theirs.values()) - 1
    for name in kernels:
        torch.testing.assert_close(trained[name], imported[name], rtol=0, atol=1e-6)
    assert {name for name in trained if trained[name].shape != imported[name].shape}

"""On a machine with GPUs, each job of Snakemake has a card of its own, without a cluster."""

from pathlib import Path

import pytest
from graphics_cards import pretend_cards
from small_project import Project


@pytest.fixture
def machine(sources: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The small project on a machine whose driver names two cards; torch sees none, so that the CPU computes."""
    pretend_cards(tmp_path, monkeypatch, "0", "1")
    return sources.copy(tmp_path / "project")


def test_jobs_get_cards_of_their_own(machine: Project) -> None:
    shards = [f"output/motion/generated/short64_native/tvl1_small/{shard:03d}.h5" for shard in range(2)]
    outcome = machine.succeed(*shards)
    assert outcome.jobs["extract_motion"] == 2 and "Provided resources: local_gpus=" in outcome.text
    logs = [path.read_text() for path in (machine.output / "logs" / "motion").rglob("*.log")]
    assert len(logs) == 2 and all("of 0, 1\n" in text for text in logs)

    training = "output/experiments/teacher_demo/1-0/weights.safetensors"
    overlay = machine.folder / "small.yaml"
    small = overlay.read_text()
    overlay.write_text("hardware: {gpus_per_training: 2}\n" + small)
    plan = machine.plan(training, options=("--printshellcmds",)).text
    assert "python -m pipeline_lib.cards 2 torchrun --standalone --nproc-per-node=2 -m pipeline_lib train" in plan
    assert "local_gpus=2" in plan
    overlay.write_text("hardware: {gpus_per_training: 3}\n" + small)
    refused = machine.run(training, options=("--dry-run",))
    assert refused.status != 0 and "hardware.gpus_per_training: 3, but 2 GPUs can be used here" in refused.text
    # A job without a GPU needs no card.
    overlay.write_text("hardware: {device: cpu}\n" + small)
    assert "pipeline_lib.cards" not in machine.plan(training, options=("--printshellcmds",)).text

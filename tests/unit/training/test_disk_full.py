import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packed_set import make_packed_set, tiny_training

from pipeline_lib.training.run import train
from pipeline_lib.training.trainer import Trainer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        # Only a file system of its own can be filled without harm; mounting takes root; containers forbid it.
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(b"0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


def test_a_full_disk_costs_a_checkpoint_and_nothing_else(small_disk, tmp_path, monkeypatch, capsys):
    packed = make_packed_set(tmp_path / "set")
    specification = tiny_training(packed, recipe={"steps": 8, "checkpoint_steps": 2})
    assert train(specification, packed.root, tmp_path / "free", 0) == 0
    output = small_disk / "run"
    original = Trainer._one_step
    kept: list[str] = []

    def one_step(self, *arguments):
        if self.step == 2:
            fill(small_disk)
        if self.step == 5:
            kept.extend(path.name for path in self.saving.checkpoints.paths())
            (small_disk / "filler").unlink()
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "_one_step", one_step)
    assert train(specification, packed.root, output, 0) == 0
    said = capsys.readouterr().err
    assert "no room on the disk for the checkpoint of step 4" in said
    assert "the last good one is step_000000002.pt" in said
    assert kept == ["step_000000002.pt"]
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (output / name).read_bytes() == (tmp_path / "free" / name).read_bytes()

"""Batches arrive whole where shared memory is small, and errors of decoding processes are messages."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.clips.dataset import clip_loader
from pipeline_lib.clips.transport import shared
from pipeline_lib.errors import UserError


class Clips(torch.utils.data.Dataset[Any]):
    """A batch says which indices it was asked for."""

    def __len__(self) -> int:
        return 12

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        numbers = torch.tensor(indices)
        return {"numbers": numbers, "rgb": numbers.to(torch.uint8)[:, None].repeat(1, 50_000), "flip": numbers % 2 == 0}


class Damaged(Clips):
    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        raise UserError(f"shard 000.h5 is damaged at {indices[0]}: make it again")


BATCHES = [[0, 1, 2], [3, 4], [5], [6, 7, 8, 9], [10, 11]]


def check_batches() -> None:
    """Every batch, in order, as one process makes it."""
    alone, together = (list(clip_loader(Clips(), BATCHES, workers)) for workers in (0, 2))  # type: ignore[arg-type]
    assert [batch["numbers"].tolist() for batch in together] == BATCHES
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_batches_arrive_whole_where_shared_memory_has_no_room() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_transport as t; t.check_batches()"
    )
    command = f"mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {shlex.join([sys.executable, '-c', script])}"
    mounted = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True)
    if mounted.returncode:
        # The machine's own must not be filled; a mount that only this test sees takes root, and containers forbid it.
        pytest.skip(f"a /dev/shm of its own cannot be mounted here: {mounted.stderr.decode().strip()}")
    done = subprocess.run(["unshare", "-m", "bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "/dev/shm has no room for a batch" in done.stderr


def test_without_shared_memory_a_batch_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    batch = shared({"x": torch.arange(3)})
    assert batch["x"].tolist() == [0, 1, 2] and not isinstance(batch["x"], torch.Tensor)


def test_an_error_of_a_decoding_process_is_its_message_alone() -> None:
    with pytest.raises(UserError) as caught:
        list(clip_loader(Damaged(), BATCHES, 1))  # type: ignore[arg-type]
    assert str(caught.value) == "shard 000.h5 is damaged at 0: make it again"


def test_an_error_that_is_kept_does_not_keep_the_processes() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_transport as t\n"
        "from pipeline_lib.clips.dataset import clip_loader\n"
        "whole = iter(clip_loader(t.Clips(), t.BATCHES, 2)); next(whole); kept = []\n"
        "try: list(clip_loader(t.Damaged(), t.BATCHES, 1))\n"
        "except t.UserError as error: kept.append(error)\n"
        "print('the end')"
    )
    # Python would wait for them for ever.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "the end\n" and done.returncode == 0, done.stderr

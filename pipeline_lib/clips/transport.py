"""How batches get from decoding processes to the one that computes, also where shared memory is small.

torch passes tensors through ``/dev/shm``, of which a container has 64 MB by default. A process that finds no room there
sends its batches through its pipe, which is slower and has no limit.
"""

import atexit
import multiprocessing
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from pipeline_lib.artefacts.atomic import named_faults
from pipeline_lib.errors import UserError

SHAPES_NO_ARTEFACT = True

SHARED_MEMORY = "/dev/shm"
_said = False


def shared(batch: Any) -> Any:
    """A batch in shared memory, or as numpy arrays if there is no room; what a decoding process does last.

    torch would move it later, in a thread whose errors nobody sees, and the receiver would wait forever.
    """
    global _said
    if isinstance(batch, UserError):
        return batch
    try:
        return {name: tensor.share_memory_() for name, tensor in batch.items()}
    except RuntimeError as error:
        if not _said:
            print(
                f"{SHARED_MEMORY} has no room for a batch ({error}), so batches go through pipes, which is slower. "
                "Give the container more (docker run --shm-size=8g), or use fewer --loader-workers.",
                file=sys.stderr,
                flush=True,
            )
            _said = True
        return {name: tensor.numpy() for name, tensor in batch.items()}


@cache
def _end_with_this_process() -> None:
    """See that no decoding process outlives this one: they ignore the signal by which Python would end them."""

    def end() -> None:
        for child in multiprocessing.active_children():
            if child.daemon:
                child.kill()

    atexit.register(end)


class ReceivedBatches:
    """Iterates over a loader's batches, tensors all of them, and turns the errors of its processes into messages.

    Args:
        loader: whose processes end with :func:`shared`.
    """

    def __init__(self, loader: "DataLoader[dict[str, torch.Tensor]]") -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Start the processes at once, so that they decode while the caller prepares.

        Raises:
            OSError: there is no room for their semaphores.
            UserError: as raised in a process, or one was killed.
        """
        _end_with_this_process()
        # Python keeps the semaphores of other processes in the same place.
        with named_faults(Path(SHARED_MEMORY)):
            batches = iter(self._loader)
        return self._received(batches)

    @staticmethod
    def _received(batches: Iterator[Any]) -> Iterator[dict[str, torch.Tensor]]:
        try:
            while True:
                try:
                    batch = next(batches, None)
                except RuntimeError as error:
                    # An error that was raised in a process says "in DataLoader worker process": a fault of the code.
                    if "DataLoader worker (pid" not in str(error):
                        raise
                    first = str(error).splitlines()[0]
                    raise UserError(
                        f"a decoding process has ended ({first}); most likely the memory ran out. Use fewer of them "
                        "(--loader-workers) or ask for more memory, and run the same command again: what is finished "
                        "stays."
                    ) from error
                if batch is None:
                    return
                if isinstance(batch, UserError):
                    raise batch
                yield {
                    name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                    for name, value in batch.items()
                }
        finally:
            # The processes end with the iterator, which the traceback of an error would keep.
            del batches

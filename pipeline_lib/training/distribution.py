"""One process or several: torchrun's environment, and the few collectives that the trainer needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process among all: ``rank`` of ``num_ranks``, the ``local_rank``-th of ``num_local`` on its machine."""

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    num_local: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.num_ranks > 1:
            dist.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the processes, in place."""
        if self.num_ranks > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, value: object) -> object:
        """What the first process holds."""
        if self.num_ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started; a process started without torchrun is alone.

    Args:
        device_type: ``cuda`` uses nccl, ``cpu`` gloo.
    """
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if num_ranks == 1:
        yield Ranks()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), num_ranks, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        dist.destroy_process_group()

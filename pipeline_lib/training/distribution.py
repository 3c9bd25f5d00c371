"""One process or several: torchrun's environment, and the few collectives that the trainer needs."""

import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from pipeline_lib.errors import UserError

Made = TypeVar("Made")


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

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        if self.is_first:
            print(text, file=sys.stderr)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.num_ranks > 1:
            dist.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the processes, in place."""
        if self.num_ranks > 1:
            dist.all_reduce(values)
        return values

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """The tensors (…) of all processes, which agree in shape, as (num_ranks, …) in the order of the ranks."""
        if self.num_ranks == 1:
            return values[None]
        parts = [torch.empty_like(values) for _ in range(self.num_ranks)]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    def gather_rows(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The tensors (rows, …) of all processes in the order of the ranks; they may differ in their rows."""
        if self.num_ranks == 1:
            return [values]
        counts = self.gather(torch.tensor(len(values), device=values.device)).tolist()
        padded = values.new_zeros((max(counts), *values.shape[1:]))
        padded[: len(values)] = values
        return [part[:count] for part, count in zip(self.gather(padded), counts, strict=True)]

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        if self.num_ranks > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def once_per_machine(self, make: Callable[[], Made]) -> Made:
        """What the first process of each machine makes; the others of the machine get it pickled.

        Raises:
            UserError: making it failed on some machine; every process raises it.
        """
        if self.num_ranks == 1:
            return make()
        own: object = None
        if self.local_rank == 0:
            try:
                own = make()
            except UserError as error:
                own = error
        # Bytes, because each object shall be loaded by the processes of its own machine alone.
        told = (isinstance(own, UserError), pickle.dumps(own) if self.local_rank == 0 else b"")
        boxes: list[tuple[bool, bytes]] = [(False, b"")] * self.num_ranks
        dist.all_gather_object(boxes, told)
        if self.local_rank:
            # torchrun counts the processes machine after machine.
            own = pickle.loads(boxes[self.rank - self.local_rank][1])
        # The maker must not end before the others have loaded what it made.
        self.barrier()
        if any(failed for failed, _ in boxes):
            raise own if isinstance(own, UserError) else UserError("another machine says in its log why it stopped")
        return cast(Made, own)

    def from_first(self, value: object) -> object:
        """What the first process holds."""
        if self.num_ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def mean_in_rank_order(
    _state: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """DDP's hook: the mean of the processes' gradients, always summed from the first process to the last.

    gloo's ring sums in another order at each place of a bucket, and DDP changes the order of its buckets after the
    first step that it sees. So a resumed run would round differently from an uninterrupted one. This needs more traffic
    than the ring and is for CPUs.
    """
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    work = dist.all_gather(parts, own, async_op=True)

    def mean(_done: object) -> torch.Tensor:
        for part in parts[1:]:
            parts[0].add_(part)
        return parts[0].div_(len(parts))

    summed: torch.futures.Future[torch.Tensor] = work.get_future().then(mean)
    return summed


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started; without torchrun there is one process.

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

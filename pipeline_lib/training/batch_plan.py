"""How a recipe's global batch is divided over the devices."""

from collections import Counter
from dataclasses import dataclass

from pipeline_lib.configuration.training import Recipe
from pipeline_lib.errors import UserError


@dataclass(frozen=True)
class Part:
    """The clips of one forward pass: the places [``first``, ``first`` + ``num_clips``) of the global batch.

    Attributes:
        first: place of the first clip.
        num_clips: ≥ 1.
        number: of the pass among all passes of a step; it chooses the pass's random numbers.
        counts: whether its loss counts. A process without a group of its own repeats the first group and adds nothing.
    """

    first: int
    num_clips: int
    number: int
    counts: bool = True


@dataclass(frozen=True)
class BatchPlan:
    """Which clips each process takes.

    A step's loss is the mean over the clips of the global batch, whatever the number of processes: each pass weighs as
    many clips as it has.

    Attributes:
        global_batch: clips of a step.
        groups: sizes of the groups that a batch normalisation sees, in the order of the global batch; all are equal,
            but the last one may be smaller.
        parts: of each process, one per forward pass, at least one.
        synchronised: each group is spread over all processes.
    """

    global_batch: int
    groups: tuple[int, ...]
    parts: tuple[tuple[Part, ...], ...]
    synchronised: bool

    @property
    def num_ranks(self) -> int:
        """Number of processes."""
        return len(self.parts)

    @property
    def micro_batch(self) -> int:
        """Clips of the largest forward pass."""
        return max(part.num_clips for parts in self.parts for part in parts)

    @property
    def num_accumulated(self) -> int:
        """Passes of the process that has the most."""
        return max(map(len, self.parts))

    @property
    def total_weight(self) -> float:
        """Sum of ``weight`` over all passes of all processes."""
        return self.global_batch / self.micro_batch

    def weight(self, part: Part) -> float:
        """Weight of a pass's loss in the step's: its clips, in units of the largest pass."""
        return part.num_clips / self.micro_batch if part.counts else 0.0

    def arithmetic(self) -> str:
        """The plan as a line of text."""
        seen = f"batch normalisation sees {self.groups[0]} clips"
        if self.groups[-1] != self.groups[0]:
            seen += f", in the last group {self.groups[-1]}"
        processes = f"{self.num_ranks} process{'es' if self.num_ranks > 1 else ''}"
        if self.micro_batch * self.num_ranks * self.num_accumulated == self.global_batch:
            return (
                f"global batch {self.global_batch} = {self.micro_batch} clips per forward pass × {processes} × "
                f"{self.num_accumulated} accumulated passes; {seen}"
            )
        num_passes = Counter(sum(part.counts for part in parts) for parts in self.parts)
        shares = ", ".join(f"{count} × {passes}" for passes, count in sorted(num_passes.items(), reverse=True))
        return (
            f"global batch {self.global_batch} in {len(self.groups)} groups; processes × forward passes of up to "
            f"{self.micro_batch} clips: {shares}; {seen}; processes with less to do wait for the others"
        )


def plan_batches(recipe: Recipe, num_ranks: int, synchronised: bool = False) -> BatchPlan:
    """Divide the global batch into the groups that batch normalisation sees, and these over the processes.

    The groups do not depend on the number of processes. Group k goes to process k modulo ``num_ranks``; if batch
    normalisation is synchronised, every process takes its share of each group.

    Args:
        recipe: names the global batch, and the batch that batch normalisation sees (6 in S3D-G and D3D: 56 and 64
            GPUs × 6 clips).
        num_ranks: processes, one device each.
        synchronised: batch normalisation is synchronised over the processes.

    Raises:
        UserError: a group has fewer clips than there are processes to share it.
    """
    total, size = recipe.global_batch, recipe.batch_norm_batch
    if size is None:
        groups = [total] if synchronised else _even(total, min(num_ranks, total))
    else:
        groups = [size] * (total // size) + ([total % size] if total % size else [])
    if synchronised and min(groups) < num_ranks:
        raise UserError(
            f"recipe.synchronise_batch_norm: {num_ranks} processes cannot share a batch normalisation of "
            f"{min(groups)} clips (recipe.batch_norm_batch: {size}, recipe.global_batch: {total}). Use at most "
            f"{min(groups)} processes, or a larger batch_norm_batch that divides global_batch."
        )
    parts: list[list[Part]] = [[] for _ in range(num_ranks)]
    first = 0
    for group, num_clips in enumerate(groups):
        shares = enumerate(_even(num_clips, num_ranks)) if synchronised else [(group % num_ranks, num_clips)]
        for rank, share in shares:
            parts[rank].append(Part(first, share, len(parts[rank]) * num_ranks + rank))
            first += share
    idle = Part(0, groups[0], 0, counts=False)
    return BatchPlan(total, tuple(groups), tuple(tuple(own) or (idle,) for own in parts), synchronised)


def _even(total: int, num_parts: int) -> list[int]:
    """``num_parts`` sizes, as equal as whole numbers can be, larger ones first."""
    size, rest = divmod(total, num_parts)
    return [size + (part < rest) for part in range(num_parts)]

"""How a recipe's global batch is divided over the devices."""

from dataclasses import dataclass

from pipeline_lib.configuration.training import Recipe
from pipeline_lib.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """global_batch = micro_batch × num_ranks × num_accumulated."""

    global_batch: int
    micro_batch: int
    num_ranks: int
    num_accumulated: int

    def arithmetic(self) -> str:
        """The plan as a line of text."""
        return (
            f"global batch {self.global_batch} = {self.micro_batch} clips per forward pass × {self.num_ranks} "
            f"process{'es' if self.num_ranks > 1 else ''} × {self.num_accumulated} accumulated passes; "
            f"batch normalisation sees {self.micro_batch} clips"
        )


def plan_batches(recipe: Recipe, num_ranks: int, synchronised: bool = False) -> BatchPlan:
    """Compute how many passes are accumulated for one step.

    Args:
        recipe: names the global batch, and the batch that batch normalisation sees (6 in S3D-G and D3D: 56 and 64
            GPUs × 6 clips).
        num_ranks: processes, one device each.
        synchronised: batch normalisation is synchronised over the processes, and so sees ``num_ranks`` micro-batches.

    Raises:
        UserError: the numbers do not divide.
    """
    group = recipe.batch_norm_batch or (recipe.global_batch if synchronised else recipe.global_batch // num_ranks)
    if synchronised and recipe.batch_norm_batch is None:
        group = recipe.global_batch
    micro = group // num_ranks if synchronised else group
    if micro < 1 or (synchronised and micro * num_ranks != group) or recipe.global_batch % (micro * num_ranks):
        raise UserError(
            f"recipe.global_batch: {recipe.global_batch} cannot be divided over {num_ranks} processes in passes of "
            f"{group} clips (recipe.batch_norm_batch{', synchronised' if synchronised else ''}). "
            "Use another number of processes or change batch_norm_batch."
        )
    return BatchPlan(recipe.global_batch, micro, num_ranks, recipe.global_batch // (micro * num_ranks))

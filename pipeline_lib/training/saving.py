"""When a training is saved, and which checkpoint is the best."""

import errno
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pipeline_lib.configuration.training import Recipe
from pipeline_lib.errors import UserError
from pipeline_lib.training.checkpoints import Checkpoints
from pipeline_lib.training.metrics_log import Means
from pipeline_lib.training.validation import Score


class Saving:
    """The saving policy of a training.

    All processes follow it, so that each knows the best score; only the first one writes.

    Args:
        recipe: how often, how many, and what "best" means.
        checkpoints: where they are written.
        device: where the losses are summed.
        writes: whether this process writes.
    """

    def __init__(self, recipe: Recipe, checkpoints: Checkpoints, device: torch.device, writes: bool) -> None:
        self.recipe, self.checkpoints, self.device, self.writes = recipe, checkpoints, device, writes
        self._best: Score | None = None
        self._losses = Means()
        """The total loss since the last checkpoint that was compared with the best."""
        self._last = time.monotonic()

    def add(self, total: torch.Tensor) -> None:
        """Count the total loss of a step."""
        self._losses.add({"total": total})

    def is_due(self, step: int) -> bool:
        """Whether to save after ``step`` steps, apart from a stop and the end."""
        overdue = time.monotonic() - self._last >= 60.0 * self.recipe.checkpoint_minutes
        return overdue or self._is_fixed(step)

    def _is_fixed(self, step: int) -> bool:
        return step % self.recipe.checkpoint_steps == 0 or step == self.recipe.steps

    def save(
        self, step: int, weights: Sequence[torch.Tensor], state: Callable[[], dict[str, Any]], score: Score | None
    ) -> None:
        """Write a checkpoint. If the disk is full, only this checkpoint is lost, and the training continues.

        Args:
            step: steps done.
            weights: what is trained.
            state: gives what the next step depends on; called by the process that writes.
            score: the last one of the validation, or None without validation.

        Raises:
            UserError: some weight is not finite.
        """
        self._check_finite(step, weights)
        earlier, is_best = self._best, self._is_best(step, score)
        self._last = time.monotonic()
        if not self.writes:
            return
        try:
            self.checkpoints.save(step, {**state(), "saving": self.state()}, is_best)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._best = earlier
            last = self.checkpoints.last_path
            print(
                f"no room on the disk for the checkpoint of step {step} ({error}); the last good one is "
                f"{last.name if last else 'none'}. The training goes on: make room under {self.checkpoints.folder}.",
                file=sys.stderr,
            )

    def _check_finite(self, step: int, weights: Sequence[torch.Tensor]) -> None:
        """Refuse to keep weights that are not finite, though the loss was: no run could continue from them."""
        largest = torch.stack(list(torch._foreach_norm(list(weights), math.inf)))
        if not bool(largest.isfinite().all()):
            raise UserError(
                f"the weights are not finite after step {step}. Last good checkpoint: "
                f"{self.checkpoints.last_path or 'none'}. "
                "Lower recipe.schedule.base_rate or set recipe.optimiser.clip_gradient_norm."
            )

    def _is_best(self, step: int, score: Score | None) -> bool:
        """Compare with the best: by the validation, or without one by the training loss.

        The training loss is compared only at fixed steps, so that the answer does not depend on when a run was stopped.
        """
        if not self.recipe.validation_steps:
            if not self._is_fixed(step) or not self._losses.count:
                return False
            score = Score(self._losses.take()["total"], step)
        if score is None or score.step != step or (self._best is not None and score.loss >= self._best.loss):
            return False
        self._best = score
        return True

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": None if self._best is None else list(self._best), "losses": self._losses.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self._best = None if state["best"] is None else Score(*state["best"])
        self._losses.restore(state["losses"], self.device)

"""Steps with a non-finite loss, which are skipped if the recipe allows it."""

import torch
from torch import nn


class SkippedSteps:
    """Skips a step without any effect, as often as the recipe allows.

    When a loss turns out not to be finite, the optimiser has not run yet. The forward passes have changed only buffers
    (statistics of batch normalisation), so these are copied before each step.

    Args:
        module: the trained module.
        allowed: steps that may be skipped; with 0 nothing is copied.

    Attributes:
        count: steps skipped so far.
    """

    def __init__(self, module: nn.Module, allowed: int) -> None:
        self.allowed, self.count = allowed, 0
        self._buffers = list(module.buffers()) if allowed else []
        self._copies = [buffer.clone() for buffer in self._buffers]

    def remember(self) -> None:
        """Copy the buffers, which the next forward passes change."""
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    def undo(self) -> bool:
        """Restore the buffers of ``remember``; False if no more steps may be skipped."""
        self.count += 1
        if self.count > self.allowed:
            return False
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)
        return True

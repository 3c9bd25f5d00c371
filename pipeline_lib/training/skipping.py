"""Steps with a non-finite loss, which a recipe may allow to be left out."""

import torch
from torch import nn


class SkippedSteps:
    """Leaves a step out without a trace, as often as is allowed.

    The optimiser has not run yet when a loss is seen to be not finite; what the forward passes changed are buffers
    (statistics of batch normalisation), so these are copied before each step.

    Args:
        module: what is trained.
        allowed: steps that may be left out; with 0 nothing is copied.

    Attributes:
        count: steps left out so far.
    """

    def __init__(self, module: nn.Module, allowed: int) -> None:
        self.allowed, self.count = allowed, 0
        self._buffers = list(module.buffers()) if allowed else []
        self._copies = [buffer.clone() for buffer in self._buffers]

    def remember(self) -> None:
        """Copy what the next forward passes change."""
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    def undo(self) -> bool:
        """Take the forward passes since ``remember`` back; False if no more steps may be left out."""
        self.count += 1
        if self.count > self.allowed:
            return False
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)
        return True

"""RAFT's update block: the same function as torchvision's, with less work in every iteration.

A gated recurrent unit convolves (hidden state, context, motion features) three times. The context is the same in every
iteration. A convolution is linear, so the context's share is computed once per pair (a quarter of the unit's work in
the small network, a third in the large one). The gates z and r read the same input and become one convolution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Fixed = list[tuple[torch.Tensor, torch.Tensor]]


class _Unit(nn.Module):
    """A convolutional GRU whose weights for the context are separate from the others.

    Args:
        unit: torchvision's ``ConvGRU``.
        num_context: channels of the context, which follow those of the hidden state.
    """

    of_context: torch.Tensor
    bias: torch.Tensor
    of_gates: torch.Tensor
    of_candidate: torch.Tensor

    def __init__(self, unit: Any, num_context: int) -> None:
        super().__init__()
        gates: list[Any] = [unit.convz, unit.convr, unit.convq]
        num_hidden = gates[0].out_channels
        self.padding: tuple[int, int] = gates[0].padding
        context = slice(num_hidden, num_hidden + num_context)
        others = [torch.cat([gate.weight[:, :num_hidden], gate.weight[:, context.stop :]], 1) for gate in gates]
        kernels = {
            "of_context": torch.cat([gate.weight[:, context] for gate in gates]),
            "of_gates": torch.cat(others[:2]),
            "of_candidate": others[2],
        }
        for name, kernel in kernels.items():
            packed = kernel.detach().clone(memory_format=torch.channels_last)
            self.register_buffer(name, packed, persistent=False)
        self.register_buffer("bias", torch.cat([gate.bias for gate in gates]).detach(), persistent=False)

    def fixed(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the context adds to (z, r) and to the candidate, biases included."""
        both = F.conv2d(context, self.of_context, self.bias, padding=self.padding)
        gates = self.of_gates.shape[0]
        return both[:, :gates], both[:, gates:]

    def forward(
        self, hidden: torch.Tensor, motion: torch.Tensor, fixed: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """The next hidden state."""
        gates = F.conv2d(torch.cat([hidden, motion], 1), self.of_gates, padding=self.padding) + fixed[0]
        z, r = torch.sigmoid(gates).chunk(2, 1)
        candidate = F.conv2d(torch.cat([r * hidden, motion], 1), self.of_candidate, padding=self.padding) + fixed[1]
        # This is tanh(candidate); on a CPU PyTorch computes tanh ten times more slowly than a sigmoid.
        return torch.lerp(hidden, 2 * torch.sigmoid(2 * candidate) - 1, z)


class UpdateStep(nn.Module):
    """One iteration of RAFT's update.

    Args:
        block: torchvision's ``UpdateBlock`` with its weights in place.
        num_context: channels of the context.
    """

    def __init__(self, block: Any, num_context: int) -> None:
        super().__init__()
        self.motion_encoder, self.flow_head = block.motion_encoder, block.flow_head
        # The small network has one unit; torchvision has a function in place of the other.
        both = (block.recurrent_block.convgru1, block.recurrent_block.convgru2)
        self.units = nn.ModuleList(_Unit(unit, num_context) for unit in both if isinstance(unit, nn.Module))

    def fixed(self, context: torch.Tensor) -> Fixed:
        """What ``forward`` needs of the context (B, num_context, H/8, W/8), once per pair."""
        units: Any = self.units
        return [unit.fixed(context) for unit in units]

    def forward(
        self, hidden: torch.Tensor, fixed: Fixed, correlation: torch.Tensor, flow: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next hidden state and the change of the flow, of maps (B, C, H/8, W/8)."""
        motion = self.motion_encoder(flow, correlation)
        for unit, own in zip(self.units, fixed, strict=True):
            hidden = unit(hidden, motion, own)
        return hidden, self.flow_head(hidden)

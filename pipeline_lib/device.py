"""The device that ``hardware.device`` means on this machine."""

import sys
from typing import Literal

import torch

from pipeline_lib.errors import UserError

# Each record says on which device its artefact was computed.
SHAPES_NO_ARTEFACT = True


def choose_device(name: str, *, without_gpu: Literal["refuse", "warn"] = "refuse") -> torch.device:
    """The device of ``auto``, ``cpu`` or ``cuda``; ``auto`` is a GPU if there is one.

    Args:
        name: as configured.
        without_gpu: what to do if ``cuda`` is configured and there is no GPU: ``refuse``, or ``warn`` and take the CPU.

    Raises:
        UserError: ``cuda`` is configured, there is no GPU, and that is refused.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        if without_gpu == "refuse":
            raise UserError("hardware.device: cuda, but torch sees no GPU here; use auto or cpu")
        print("warning: hardware.device: cuda, but no CUDA device here: the CPU computes", file=sys.stderr, flush=True)
    return torch.device("cuda" if available and name != "cpu" else "cpu")

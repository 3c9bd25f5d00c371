"""The device that ``hardware.device`` means on this machine."""

import sys
from typing import Literal

import torch

from pipeline_lib.cards import cores
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


def loader_workers(asked: int | None, device: torch.device, num_processes: int = 1) -> int:
    """Number of decoding processes: as asked, else none on the CPU and most of this job's cores beside a GPU.

    On the CPU a job uses only the threads that its rule reserved. Decoding is a few per cent of a step there, and
    another process on the same cores would cost more time than it saves.

    Args:
        asked: a number, or None to choose.
        device: where the network computes.
        num_processes: processes of this job on this machine, which share its cores.
    """
    if device.type == "cpu":
        return asked or 0
    return max(1, min(16, cores() // num_processes - 1)) if asked is None else asked

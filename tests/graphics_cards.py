"""A machine with GPUs, as far as the driver's program says; torch sees none, so that the CPU computes."""

import os
from pathlib import Path

import pytest


def pretend_cards(folder: Path, patch: pytest.MonkeyPatch, *names: str) -> None:
    """Let ``nvidia-smi`` print these cards, and the locks of cards lie in ``folder``."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("\n".join(["#!/bin/sh", *(f"echo {name}" for name in names), ""]))
    program.chmod(0o755)
    patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    patch.setenv("TMPDIR", str(folder))
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

"""The GPUs of one machine, shared out among jobs: ``python -m pipeline_lib.cards COUNT COMMAND …``.

Jobs of one machine would all take the first card. This command waits until ``COUNT`` cards are free, tells the command
which they are (``CUDA_VISIBLE_DEVICES``), and becomes it. A card is held by a lock on a file, which the kernel frees
when the command and all its children have ended, however they ended. On a cluster the scheduler shares the cards out.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pipeline_lib.errors import UserError

# Where something is computed changes no artefact.
SHAPES_NO_ARTEFACT = True

CORES = "PIPELINE_CORES"
"""Environment variable: how many of the machine's cores a job with its own GPUs may use."""


def cards() -> list[str]:
    """The GPUs that jobs may use, as ``CUDA_VISIBLE_DEVICES`` names them: those it names already, or all.

    They are asked of the driver's ``nvidia-smi``, because torch takes seconds to load.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # As CUDA reads it: what follows a negative number is not visible.
        visible = [name.strip() for name in named.split(",") if name.strip()]
        return visible[: next((at for at, name in enumerate(visible) if name.startswith("-")), len(visible))]
    try:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.split()


def _lock(card: str) -> int | None:
    """Lock a card without waiting: the open file, or None if another job has it."""
    path = Path(tempfile.gettempdir()) / f"pipeline_lib-gpu-{card.replace('/', '_')}.lock"
    try:
        # Other users share the cards and so these files, and Linux refuses to create what another user has made.
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def hold(count: int, of: Sequence[str], poll_seconds: float = 0.5) -> list[str]:
    """Wait until ``count`` of the cards are free, and hold them until this process and its children have ended.

    Args:
        count: how many cards are needed, at least 1.
        of: the cards.
        poll_seconds: pause between two looks.

    Raises:
        UserError: there are fewer cards.
    """
    if count > len(of):
        raise UserError(
            f"a job needs {count} GPUs, but {len(of)} can be used here ({', '.join(of) or 'none'}): "
            "lower hardware.gpus_per_training"
        )
    began, told = time.monotonic(), False
    while True:
        held: dict[str, int] = {}
        for card in of:
            if len(held) < count and (descriptor := _lock(card)) is not None:
                held[card] = descriptor
        if len(held) == count:
            for descriptor in held.values():
                os.set_inheritable(descriptor, True)
            return list(held)
        # All or none: two jobs that hold a part of what they need would wait for each other for ever.
        for descriptor in held.values():
            os.close(descriptor)
        if not told and time.monotonic() - began > 10:
            told = True
            print(f"waiting for {count} of the GPUs {', '.join(of)}: other jobs use them", file=sys.stderr, flush=True)
        time.sleep(poll_seconds)


def cores() -> int:
    """How many cores this job may use: its part of the machine beside other jobs with GPUs, or all."""
    return int(os.environ.get(CORES, 0)) or len(os.sched_getaffinity(0))


def main(words: Sequence[str]) -> NoReturn:
    """Hold as many cards as the first word says, and become the command of the others."""
    if len(words) < 2 or not words[0].isdecimal() or words[0] == "0":
        print("usage: python -m pipeline_lib.cards COUNT COMMAND [ARGUMENT …]", file=sys.stderr)
        sys.exit(2)
    count, command = int(words[0]), list(words[1:])
    visible = cards()
    try:
        held = hold(count, visible)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    os.environ.setdefault(CORES, str(max(1, len(os.sched_getaffinity(0)) * count // len(visible))))
    print(f"GPU {', '.join(held)} of {', '.join(visible)}", file=sys.stderr, flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What an artefact was made from: written into every artefact, and read back to compare."""

import datetime
import getpass
import json
import platform
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.atomic import write_json
from pipeline_lib.artefacts.digest import digest
from pipeline_lib.artefacts.fingerprint import code_fingerprint

LIBRARY_VERSION = "0.1.0"


def distribution_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of distributions, for the artefacts that depend on them."""
    return {name: metadata.version(name) for name in names}


def torch_versions(device: str) -> dict[str, str]:
    """PyTorch's version with its build, and on a GPU those of CUDA and cuDNN, which shape the bytes there.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    # Who asks has imported it; the stages that do not compute neither import nor need it.
    torch = sys.modules["torch"]
    versions = {"torch": str(torch.__version__)}
    if device == "cuda":
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return versions


def manifest_record(summary: Path) -> dict[str, Any]:
    """What an artefact says of the manifest behind it: data set, digest and counts; empty if there is no summary.

    It goes beside a record, not into its digest: a training goes on from its checkpoint when a video was added to
    another list.

    Args:
        summary: ``summary.json`` of the manifest.
    """
    try:
        content = json.loads(summary.read_text(encoding="utf-8"))
        return {"dataset": summary.parent.name, "digest": content["digest"], "counts": content.get("status", {})}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def provenance(
    stage: str,
    modules: Iterable[str],
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """What determines an artefact's bytes, as plain data: no host, no time.

    Args:
        stage: name of the stage (``extract_frames``).
        modules: the stage's modules; their closure is fingerprinted.
        parameters: every parameter that the stage got.
        inputs: name → digest of what the stage read.
        versions: name → version of each tool that shaped the bytes (ffmpeg, OpenCV, torch …).

    Returns:
        A dictionary with those five parts, ``library``, ``python`` and ``digest``; the last is over all others
        and is what parts and checkpoints carry, so that only work of equal origin is resumed.
    """
    record: dict[str, Any] = {
        "stage": stage,
        "library": LIBRARY_VERSION,
        "python": platform.python_version(),
        "code": code_fingerprint(modules),
        "parameters": dict(parameters),
        "inputs": dict(inputs),
        "versions": dict(versions),
    }
    return record | {"digest": digest(record)}


def sidecar_path(artefact: Path) -> Path:
    """Where an artefact's sidecar lies: ``{artefact}.run.json``."""
    return artefact.with_name(artefact.name + ".run.json")


class Sidecar:
    """Times a stage and writes host, user, times and figures beside its artefact, where no rule reads them."""

    def __init__(self) -> None:
        self._start = time.time()

    def write(self, artefact: Path, figures: Mapping[str, Any] | None = None) -> None:
        """Write ``{artefact}.run.json``; ``figures`` are measurements of this run (rates, what bound it)."""
        end = time.time()
        torch = sys.modules.get("torch")
        gpu = {"gpu": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_available() else {}
        write_json(
            sidecar_path(artefact),
            {
                "host": socket.gethostname(),
                **gpu,
                "user": getpass.getuser(),
                "command": sys.argv,
                "started": datetime.datetime.fromtimestamp(self._start, datetime.UTC).isoformat(),
                "finished": datetime.datetime.fromtimestamp(end, datetime.UTC).isoformat(),
                "seconds": round(end - self._start, 3),
                "figures": dict(figures or {}),
            },
        )

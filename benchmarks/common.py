"""What every benchmark ends with: one line of JSON with the figure, its reference and the conditions.

A benchmark is a script in this folder; run as ``python benchmarks/NAME.py`` it prints what it does on the standard
error and one line of JSON on the standard output. The reference is measured in the same run, on the same machine.
"""

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any


def say(message: str) -> None:
    """Tell a person what the benchmark is doing, away from the line of JSON."""
    print(message, file=sys.stderr, flush=True)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _accelerators() -> list[str]:
    # torch takes seconds to import: only asked for where a benchmark has imported it already.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, usable cores, memory, accelerators, versions."""
    versions = {}
    for name in ("torch", "numpy", "opencv-contrib-python-headless", "av", "simplejpeg", "h5py", "snakemake"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": _memory_gib(),
        "accelerators": _accelerators(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def emit(
    name: str,
    value: float,
    unit: str,
    reference: float | None,
    higher_is_better: bool = True,
    conditions: Mapping[str, Any] | None = None,
    ratio: float | None = None,
) -> dict[str, Any]:
    """Print the benchmark's one line of JSON and return it as a dictionary.

    Args:
        name: what was measured, in snake case.
        value: the figure.
        unit: its unit.
        reference: the same quantity of the reference, measured in this run; None where a figure has none.
        higher_is_better: whether a larger ``value`` is better; decides the direction of ``ratio``.
        conditions: inputs, sizes, counts and further figures of this run; the machine is added.
        ratio: set where it is not value / reference (or its inverse); above 1 means better than the reference.
    """
    if ratio is None and reference is not None and value and reference:
        ratio = value / reference if higher_is_better else reference / value
    record = {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "ratio": None if ratio is None else round(ratio, 4),
        "conditions": dict(conditions or {}) | {"machine": machine()},
    }
    print(json.dumps(record, ensure_ascii=False), flush=True)
    return record

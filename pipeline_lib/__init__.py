"""From raw video to motion-distilled networks. ``load`` gives a trained experiment; the README shows how."""

import importlib
from typing import TYPE_CHECKING, Any

from pipeline_lib.caches import prepare_caches

if TYPE_CHECKING:
    from pipeline_lib.evaluation.experiment import load as load

__all__ = ["load"]

# Libraries read these variables when they are imported.
prepare_caches()


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: torch takes seconds, which no other command shall wait for.
    if name == "load":
        return importlib.import_module("pipeline_lib.evaluation.experiment").load
    raise AttributeError(f"module 'pipeline_lib' has no attribute {name!r}")

"""A decoder that some files hang, abort or end; in a module of its own, which a probing process imports quickly."""

import os
import time
from pathlib import Path

from pipeline_lib.manifests.probing import Probe


def hostile_probe(path: Path, decode: bool) -> Probe:
    """Stands in for ``probe_file``: what becomes of a file stands in its name."""
    if "hang" in path.name:
        time.sleep(60)
    if "crash" in path.name:
        os.abort()
    if "exit" in path.name:
        os._exit(3)
    return Probe(num_frames=len(path.name))

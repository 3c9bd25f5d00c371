"""A probing process: reads one JSON request a line, answers one JSON line, can be killed at any time.

Started by ``pipeline_lib.manifests.pool`` as ``python -m pipeline_lib.manifests.probing_worker``.
"""

import json
import math
import os
import resource
import signal
import sys
from pathlib import Path

from pipeline_lib.manifests.probing import Probe, probe_file

# A hostile file may declare a frame of gigabytes; 8K video decodes in far less than this.
_MEMORY_BYTES = 6 << 30


def main() -> None:
    """Answer requests until the standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Should the parent be killed while a decoder hangs here, the alarm ends this process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Whatever a decoder prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(math.ceil(request["seconds"]) + 5)
        try:
            probe = probe_file(Path(request["path"]), request["decode"])
        except FileNotFoundError:
            probe = Probe(problem="missing: it vanished while it was probed")
        except (OSError, MemoryError, ValueError, ArithmeticError) as error:
            probe = Probe(problem=f"undecodable: {type(error).__name__}: {error}")
        signal.alarm(0)
        answers.write(json.dumps(probe.to_json()) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

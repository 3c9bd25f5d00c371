import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# A process that waits for its job after an interrupt, as Snakemake does, and one more child that is no job.
SCRIPT = '''
import subprocess, sys, time
from pipeline_lib.planning import interrupts
interrupts.PATIENCE_SECONDS, interrupts.LIMIT_SECONDS = 0.1, 0.6
interrupts.end_jobs_on_interrupt()
body = """import signal, subprocess, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(50)"]).pid, flush=True)
time.sleep(50)"""
job = subprocess.Popen([sys.executable, "-c", body, "pipeline_lib", sys.argv[1]], start_new_session=True)
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"])
try:
    job.wait()
except KeyboardInterrupt:
    print("interrupted", job.wait(), other.wait(), flush=True)
'''


@pytest.mark.parametrize(("kind", "status"), [("willing", -signal.SIGTERM), ("stubborn", -signal.SIGKILL)])
def test_an_interrupt_that_reaches_only_the_parent_ends_jobs_and_their_children(kind: str, status: int) -> None:
    command = [sys.executable, "-c", SCRIPT, kind]
    # As a terminal starts it: a shell's background jobs ignore interrupts, and so would what they start.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        grandchild = psutil.Process(int(process.stdout.readline()))
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        # A command of a cluster, such as scancel, is let finish.
        assert process.stdout.readline().split() == ["interrupted", str(status), "0"]
        assert process.wait(20) == 0 and time.monotonic() - began < 15
        psutil.wait_procs([grandchild], timeout=5)
        assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE

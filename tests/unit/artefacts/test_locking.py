import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_lib.artefacts.locking import artefact_lock
from pipeline_lib.errors import UserError

HOLDER = (
    "import sys, time; from pathlib import Path; from pipeline_lib.artefacts.locking import artefact_lock\n"
    "with artefact_lock(Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


def start_holder(artefact: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(artefact)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    with start_holder(tmp_path / "x.h5") as process:
        try:
            with pytest.raises(UserError, match=f"process {process.pid} on "), artefact_lock(tmp_path / "x.h5", 0.3):
                pass
            with artefact_lock(tmp_path / "other.h5", 0.0):
                pass
        finally:
            process.kill()


def test_a_second_writer_goes_on_when_the_first_is_killed(tmp_path: Path) -> None:
    with start_holder(tmp_path / "x.h5") as process:
        os.kill(process.pid, signal.SIGKILL)
        start = time.monotonic()
        with artefact_lock(tmp_path / "x.h5", 10.0):
            assert time.monotonic() - start < 10.0


def test_the_lock_is_free_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with artefact_lock(tmp_path / "x.h5", 0.0):
            pass

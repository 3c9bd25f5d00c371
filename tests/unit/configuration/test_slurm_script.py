"""Where SLURM cannot be had, the script that starts it says so and changes nothing."""

import shutil
import subprocess
from pathlib import Path

TOOLS = (
    "bash",
    "env",
    "hostname",
    "id",
    "grep",
    "mktemp",
    "tail",
    "rm",
    "timeout",
    "awk",
    "sed",
    "cat",
    "seq",
    "sleep",
)
CONFIGURATION = Path("/etc/slurm/slurm.conf")


def test_a_failing_apt_is_no_slurm_rather_than_a_failure(repository: Path, tmp_path: Path) -> None:
    for tool in TOOLS:
        path = shutil.which(tool)
        assert path is not None, tool
        (tmp_path / tool).symlink_to(path)
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/bash\necho 'E: Unable to locate package slurm-wlm' >&2\nexit 100\n")
    apt.chmod(0o755)
    before = CONFIGURATION.read_bytes() if CONFIGURATION.exists() else None
    done = subprocess.run(
        [str(repository / "tests/slurm/start.sh")], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    assert "no SLURM here" in done.stderr
    assert (CONFIGURATION.read_bytes() if CONFIGURATION.exists() else None) == before

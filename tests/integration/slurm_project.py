"""The small project with the cluster profile, its sizes those of one small node."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from small_project import Outcome, Project, Run

# What a cluster's node has and this one has not.
SMALLER = {"gres": "gpu:1", "mem_mb": 4000, "runtime": 10}


def site_profile(project: Project, retries: int = 3, source: str = "slurm", **training: Any) -> None:
    """Write ``profiles/site``: a profile of the project with fewer cores, GPUs and minutes, nothing else changed.

    Args:
        project: whose profile.
        source: its name.
        retries: of every job.
        training: resources of the training rules that the test is about.
    """
    path = project.folder / "profiles" / source / "config.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    profile |= {"latency-wait": 5, "slurm-init-seconds-before-status-checks": 8, "slurm-keep-successful-logs": True}
    profile["retries"] = retries
    profile["default-resources"] |= {key: SMALLER[key] for key in ("mem_mb", "runtime")}
    profile["set-threads"] = dict.fromkeys(profile["set-threads"], 1)
    for rule, resources in profile["set-resources"].items():
        changed = {key: SMALLER.get(key, value) for key, value in resources.items()}
        profile["set-resources"][rule] = changed | (training if "launcher" in changed else {})
    folder = project.folder / "profiles/site"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")


def start(project: Project, *targets: str) -> Run:
    """Snakemake on the login node."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/site", "--configfile", "small.yaml"]
    return Run(
        [*command, "--", *targets], cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(run: Run, seconds: float = 900) -> Outcome:
    """Wait for its end; its jobs end with it if it does not come."""
    try:
        text, _ = run.communicate(timeout=seconds)
    except BaseException:
        # Also when the tests are interrupted: it would go on without them.
        run.terminate()
        raise
    return Outcome(run.returncode, text)


def succeed(project: Project, *targets: str) -> Outcome:
    """Run to the end without a failure."""
    outcome = finish(start(project, *targets))
    assert outcome.status == 0, outcome.text[-6000:]
    return outcome


def job_ids(text: str) -> list[str]:
    """The numbers of the SLURM jobs that a run submitted, in order."""
    return re.findall(r"SLURM jobid '?(\d+)", text)


def queue(*columns: str) -> list[list[str]]:
    """Rows of ``squeue`` on this user's running and waiting jobs."""
    form = "|".join(columns)
    command = ["squeue", "--noheader", "--states=pending,running", f"--format={form}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("|") for line in text.splitlines()]


def nodes_of(job: str) -> int:
    """How many nodes a job had, running or ended."""
    command = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%D"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def answers() -> bool:
    """Whether a SLURM with a usable node is here."""
    try:
        command = ["sinfo", "--noheader", "--format=%T"]
        states = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return False
    return any(state.rstrip("*~#$@") in ("idle", "mixed", "allocated") for state in states)


def log_of(project: Project, *parts: str) -> Path:
    """A stage's log file."""
    return project.output.joinpath("logs", *parts).with_suffix(".log")

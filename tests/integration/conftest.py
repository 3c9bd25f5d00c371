"""A finished run of the small project, from which tests start."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from small_project import SMALL, Project, copy_sources


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Project]) -> Project:
    """What ``make`` puts into a new folder: once for all processes that share the tests among them."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / f"{name}.lock"):
        folder = shared / name / "project"
        done = shared / f"{name}.done"
        if not done.exists():
            make(folder)
            done.touch()
    return Project(folder)


def with_small_overlay(folder: Path, repository: Path) -> Project:
    project = copy_sources(repository, folder)
    (project.folder / "small.yaml").write_text(SMALL)
    specification = (
        '{"name": "generated", "dataset": {"format": "generated", "generated": {"family": "motions", "num_train": 17, '
        '"num_validation": 8, "num_frames": 10, "short_side": 48, "seed": 1}}}'
    )
    subprocess.run(
        [sys.executable, "-m", "pipeline_lib", "generate", "--specification", specification, "--output", "data"],
        cwd=project.folder,
        check=True,
        capture_output=True,
    )
    # One video is left out of the list at first: a test adds it.
    train = project.folder / "data" / "train.csv"
    lines = train.read_text().splitlines(keepends=True)
    (project.folder / "data" / "left_out.csv").write_text(lines[-1])
    train.write_text("".join(lines[:-1]))
    return project


@pytest.fixture(scope="session")
def sources(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The sources with the small overlay and its videos, nothing run yet."""
    return made_once(tmp_path_factory, "sources", lambda folder: with_small_overlay(folder, repository))


@pytest.fixture(scope="session")
def finished(sources: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small demo, run to its end once."""

    def run_to_its_end(folder: Path) -> Project:
        project = sources.copy(folder)
        project.succeed("demo")
        return project

    return made_once(tmp_path_factory, "finished", run_to_its_end)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished run for one test to change."""
    return finished.copy(tmp_path / "project")

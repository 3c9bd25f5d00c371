"""A finished run of the small project, from which tests start."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_project import SMALL, Project, copy_sources


@pytest.fixture(scope="session")
def sources(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The sources with the small overlay and its videos, nothing run yet."""
    project = copy_sources(repository, tmp_path_factory.mktemp("sources") / "project")
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
def finished(sources: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small demo, run to its end once."""
    project = sources.copy(tmp_path_factory.mktemp("finished") / "project")
    project.succeed("demo")
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished run for one test to change."""
    return finished.copy(tmp_path / "project")

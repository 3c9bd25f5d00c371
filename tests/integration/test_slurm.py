"""The cluster profile on a real SLURM: the stages, two tasks of one training, jobs that end before their work does."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_project as slurm
import torch
from safetensors.torch import load_file
from small_project import Project, wait_for

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not slurm.answers(), reason="no SLURM answers here; tests/slurm/start.sh starts one"),
]

WEIGHTS = "output/experiments/baseline_demo/1-0/weights.safetensors"
METRICS = "output/evaluations/baseline_demo/1-0/two_clips/metrics.json"
TWO_TASKS = {"tasks": 2, "mpi": "srun", "tasks_per_gpu": 0}
LONG = 240
"""Steps of a training that is still running when something happens to it."""


def num_nodes() -> int:
    """Nodes that the two tasks of a training share out: two where there are two."""
    return min(2, len(slurm_nodes()))


@pytest.fixture(scope="module")
def trained(sources: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """The RGB network, trained by two tasks on two nodes, with all that comes before; and what Snakemake said."""
    project = sources.copy(tmp_path_factory.mktemp("slurm") / "project")
    # So that one process computes the same: groups of clips that batch normalisation sees in any case, no dropout.
    project.edit(
        "small.yaml", "    global_batch: 4\n", "    global_batch: 4\n    batch_norm_batch: 2\n    dropout: 0.0\n"
    )
    slurm.site_profile(project, nodes=num_nodes(), **TWO_TASKS)
    return project, slurm.succeed(project, WEIGHTS).text


@pytest.fixture
def longer(trained: tuple[Project, str], tmp_path: Path) -> Iterator[Project]:
    """A copy whose network trains long enough to be disturbed, in one process."""
    project = trained[0].copy(tmp_path / "project")
    project.edit("small.yaml", "    steps: 10\n", f"    steps: {LONG}\n")
    slurm.site_profile(project)
    yield project
    for job, name in slurm.queue("%i", "%Z"):
        if name == str(project.folder):
            subprocess.run(["scancel", job], check=False)
    # Without cgroups SLURM does not find every process of a job whose node it took for dead.
    subprocess.run(["pkill", "-9", "-f", str(project.folder)], check=False)


@pytest.fixture
def undisturbed(longer: Project, tmp_path: Path) -> Callable[[], bytes]:
    """The weights that the same training gives on one machine."""

    def weights() -> bytes:
        project = longer.copy(tmp_path / "undisturbed")
        project.succeed(WEIGHTS)
        return (project.folder / WEIGHTS).read_bytes()

    return weights


def steps_done(project: Project) -> int:
    """Steps that the running training has written to its log of metrics."""
    metrics = project.folder / "output/experiments/baseline_demo/1-0/checkpoints/metrics.jsonl"
    found = re.findall(r'"step": (\d+)', metrics.read_text(encoding="utf-8")) if metrics.exists() else []
    return int(found[-1]) if found else 0


def training_job(project: Project) -> str:
    """The SLURM job that trains."""
    jobs = [job for job, folder, state in slurm.queue("%i", "%Z", "%T") if folder == str(project.folder)]
    assert len(jobs) == 1, jobs
    return jobs[0]


def resumed(project: Project) -> bool:
    """Whether the training's last start went on from a checkpoint."""
    return "going on after step" in slurm.log_of(project, "train", "baseline_demo", "1-0").read_text(encoding="utf-8")


def test_stages_and_two_tasks_of_a_training_run_through_slurm(trained: tuple[Project, str], tmp_path: Path) -> None:
    project, text = trained
    # Both shards of a stage went in one submission.
    assert len(re.findall(r"Submitted array job", text)) == 1
    first = slurm.log_of(project, "train", "baseline_demo", "1-0").read_text(encoding="utf-8").splitlines()[0]
    assert "2 clips per forward pass × 2 processes × 1 accumulated passes" in first
    assert slurm.nodes_of(slurm.job_ids(text)[-1]) == num_nodes()
    # SLURM's own output lies below the output root.
    assert list((project.output / "logs/slurm").rglob("*.log"))
    # Nothing left to do, and the number of tasks is no reason to train again.
    slurm.site_profile(project)
    assert "Nothing to be done" in slurm.succeed(project, WEIGHTS).text
    # The profile for one GPU takes over: it evaluates, and submits nothing else.
    slurm.site_profile(project, source="small")
    outcome = slurm.succeed(project, METRICS)
    assert outcome.jobs == {"evaluate_run": 1}
    assert len(set(slurm.job_ids(outcome.text))) == 1
    # One process on one machine, from the same shards, comes to the same weights.
    alone = project.copy(tmp_path / "alone")
    (alone.folder / WEIGHTS).unlink()
    assert alone.succeed(WEIGHTS).jobs["train_baseline"] == 1
    first = slurm.log_of(alone, "train", "baseline_demo", "1-0").read_text(encoding="utf-8").splitlines()[0]
    assert "2 clips per forward pass × 1 process × 2 accumulated passes" in first
    one, two = load_file(alone.folder / WEIGHTS), load_file(project.folder / WEIGHTS)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(two[name].float(), tensor.float(), rtol=1e-2, atol=1e-3), name


@pytest.mark.soak
def test_a_cancelled_training_goes_on_in_the_retry(longer: Project, undisturbed: Callable[[], bytes]) -> None:
    with slurm.start(longer, WEIGHTS) as run:
        wait_for(lambda: steps_done(longer) >= 20 or run.poll() is not None, 300)
        job, reached = training_job(longer), steps_done(longer)
        subprocess.run(["scancel", job], check=True)
        outcome = slurm.finish(run)
    assert outcome.status == 0, outcome.text[-6000:]
    assert 20 <= reached < LONG
    assert len(set(slurm.job_ids(outcome.text))) >= 2, outcome.text[-3000:]
    assert resumed(longer)
    assert (longer.folder / WEIGHTS).read_bytes() == undisturbed()


@pytest.mark.soak
def test_a_training_at_its_time_limit_saves_when_warned(longer: Project, undisturbed: Callable[[], bytes]) -> None:
    longer.edit("small.yaml", f"    steps: {LONG}\n", "    steps: 2000\n")
    # SLURM counts in minutes and may warn a minute early: of two minutes' limit the warning comes in the second.
    # How many such jobs the steps take depends on the machine.
    slurm.site_profile(longer, retries=20, runtime=2, slurm_extra="'--signal=USR1@45'")
    outcome = slurm.finish(slurm.start(longer, WEIGHTS), 1800)
    assert outcome.status == 0, outcome.text[-6000:]
    assert len(set(slurm.job_ids(outcome.text))) >= 2
    assert resumed(longer)
    assert (longer.folder / WEIGHTS).read_bytes() == undisturbed()


@pytest.mark.soak
def test_a_node_that_goes_down_and_comes_back(longer: Project, undisturbed: Callable[[], bytes]) -> None:
    with slurm.start(longer, WEIGHTS) as run:
        wait_for(lambda: steps_done(longer) >= 20 or run.poll() is not None, 300)
        assert steps_done(longer) < LONG
        ((node,),) = [row[1:] for row in slurm.queue("%Z", "%N") if row[0] == str(longer.folder)]
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"], check=True)
        time.sleep(5)
        # Refused where the node has come back by itself (ReturnToService=2).
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False, capture_output=True)
        wait_for(slurm.answers, 60)
        outcome = slurm.finish(run, 1800)
    assert outcome.status == 0, outcome.text[-6000:]
    assert (longer.folder / WEIGHTS).read_bytes() == undisturbed()


@pytest.mark.soak
def test_the_whole_demo_through_the_profile(sources: Project, finished: Project, tmp_path: Path) -> None:
    project = sources.copy(tmp_path / "project")
    slurm.site_profile(project)
    slurm.succeed(project, "demo")
    for name in ("teacher_demo", "d3d_demo", "d3d_demo_transfer"):
        weights = f"output/experiments/{name}/1-0/weights.safetensors"
        assert (project.folder / weights).read_bytes() == (finished.folder / weights).read_bytes()
    assert (project.output / "report/demo.html").exists()


def slurm_nodes() -> list[list[str]]:
    """Name and state of every node."""
    command = ["sinfo", "--noheader", "--Node", "--format=%N|%T"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("|") for line in text.splitlines()]

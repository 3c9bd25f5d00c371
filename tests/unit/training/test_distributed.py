import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from packed_set import PackedSet, make_packed_set, measure_strengths, tiny_modist, tiny_training
from real_processes import free_port, train_in_processes

from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.training.run import train
from pipeline_lib.training.signals import EXIT_INTERRUPTED
from pipeline_lib.training.trainer import Trainer
from pipeline_lib.training.weights import load_weights


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("distributed"))


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["total"] for line in lines(folder) if "total" in line]


def synchronised(packed: PackedSet, **recipe: object) -> TrainingSpecification:
    return tiny_training(packed, recipe={"dropout": 0.0, "synchronise_batch_norm": True, "steps": 6, **recipe})


def train_words(specification: TrainingSpecification, packed: PackedSet, output: Path) -> list[str]:
    words = ["-m", "pipeline_lib", "train", "--specification", specification.model_dump_json()]
    return [*words, "--root", str(packed.root), "--output", str(output), "--loader-workers", "0"]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def test_two_processes_give_the_losses_of_one(packed, tmp_path):
    # Three videos: the processes' shares of the validation are not equal.
    specification = synchronised(packed, reestimate_batch_norm=2, validation_steps=3, validation_videos=3)
    train(specification, packed.root, tmp_path / "one", 0)
    printed = train_in_processes(specification, packed, tmp_path / "two", 2)
    assert "global batch 4 = 2 clips per forward pass × 2 processes × 1 accumulated passes" in printed
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3, abs=1e-4)
    assert len(losses(tmp_path / "two")) == 6
    watched = [[line for line in lines(tmp_path / name) if "validation_loss" in line] for name in ("one", "two")]
    assert [line["step"] for line in watched[1]] == [3, 6]
    for left, right in zip(*watched, strict=True):
        assert right == pytest.approx(left, rel=1e-3)
    one, two = (load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("one", "two"))
    for name, tensor in one.items():
        assert torch.allclose(two[name].float(), tensor.float(), rtol=1e-2, atol=1e-3), name


# R(2+1)D's 4 groups, S3D-G's 56 in small, and a smaller last group.
PLANS: dict[str, dict[str, object]] = {
    "4 groups": {"global_batch": 8, "batch_norm_batch": 2},
    "7 groups": {"global_batch": 14, "batch_norm_batch": 2},
    "3, 3, 2 clips": {"global_batch": 8, "batch_norm_batch": 3, "optimiser": {"clip_gradient_norm": 1.0}},
}
RUNS = [("4 groups", 3), ("4 groups", 8), ("7 groups", 2), ("7 groups", 3), ("7 groups", 8), ("3, 3, 2 clips", 2)]


@pytest.fixture(scope="module")
def alone(packed, tmp_path_factory):
    """Losses and weights of one process, by plan."""
    folder = tmp_path_factory.mktemp("alone")
    for name, recipe in PLANS.items():
        train(uneven(packed, recipe), packed.root, folder / name, 0)
    return {name: (losses(folder / name), load_weights(folder / name / "weights.safetensors")[0]) for name in PLANS}


def uneven(packed: PackedSet, recipe: dict[str, object]) -> TrainingSpecification:
    return tiny_training(packed, recipe={"steps": 3, "reestimate_batch_norm": 2, **recipe})


@pytest.mark.parametrize(("plan", "num_ranks"), RUNS)
def test_any_number_of_processes_gives_the_losses_of_one(packed, alone, tmp_path, plan, num_ranks):
    # With dropout: the random numbers of a group are the same too.
    train_in_processes(uneven(packed, PLANS[plan]), packed, tmp_path / "run", num_ranks)
    expected, weights = alone[plan]
    assert losses(tmp_path / "run") == pytest.approx(expected, rel=1e-4)
    tensors = load_weights(tmp_path / "run" / "weights.safetensors")[0]
    for name, tensor in weights.items():
        assert torch.allclose(tensors[name].float(), tensor.float(), rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("objective", ["classification", "modist"])
def test_three_processes_share_eight_clips_of_a_batch_normalisation(packed, tmp_path, objective):
    recipe = {"global_batch": 8, "steps": 5}
    specification = tiny_modist(packed, recipe=recipe) if objective == "modist" else synchronised(packed, **recipe)
    if objective == "modist":
        measure_strengths(packed)
    train(specification, packed.root, tmp_path / "one", 0)
    printed = train_in_processes(specification, packed, tmp_path / "three", 3)
    assert "3 × 1; batch normalisation sees 8 clips" in printed
    assert losses(tmp_path / "three") == pytest.approx(losses(tmp_path / "one"), rel=1e-3, abs=1e-4)


def test_a_training_goes_on_with_another_number_of_processes(packed, alone, tmp_path, monkeypatch):
    original = Trainer._forward

    def stop_in_step_one(self, *arguments):
        if self.step == 1:
            self.machine.request.signal = signal.SIGTERM
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "_forward", stop_in_step_one)
    specification = uneven(packed, PLANS["7 groups"])
    assert train(specification, packed.root, tmp_path / "run", 0) == EXIT_INTERRUPTED
    printed = train_in_processes(specification, packed, tmp_path / "run", 3)
    assert "going on after step 2" in printed
    assert "1 × 3, 2 × 2" in printed
    assert losses(tmp_path / "run") == pytest.approx(alone["7 groups"][0], rel=1e-4)


def start_nodes(
    specification: TrainingSpecification, packed: PackedSet, output: Path, num_nodes: int
) -> "list[subprocess.Popen[bytes]]":
    port = free_port()
    nodes = []
    for node in range(num_nodes):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(num_nodes), "--nproc-per-node", "1"]
        command += ["--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", str(port)]
        command += train_words(specification, packed, output)
        log = open(output.parent / f"{output.name}-{node}.log", "wb")
        nodes.append(subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True))
    return nodes


def end(nodes: "list[subprocess.Popen[bytes]]") -> None:
    """Kill -9: the agents and their workers, which live in sessions of their own."""
    for node in nodes:
        family = [node.pid]
        for pid in family:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            family += [int(child) for child in children.read_text().split()] if children.exists() else []
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()


@pytest.mark.soak
def test_a_job_of_four_nodes_survives_the_loss_of_one(packed, tmp_path):
    specification = synchronised(packed, steps=30, checkpoint_steps=2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    nodes = start_nodes(specification, packed, whole, 4)
    try:
        assert [node.wait(300) for node in nodes] == [0] * 4, (tmp_path / "whole-0.log").read_text()
        nodes = start_nodes(specification, packed, killed, 4)
        deadline = time.monotonic() + 200
        while not list(killed.glob("checkpoints/step_*.pt")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        end(nodes[2:3])
        # The others notice the lost connection and fail; a job manager ends the rest of the job.
        time.sleep(1)
        end(nodes)
        assert not (killed / "weights.safetensors").exists()
        nodes = start_nodes(specification, packed, killed, 4)
        assert [node.wait(300) for node in nodes] == [0] * 4, (tmp_path / "killed-0.log").read_text()
        assert "going on after step" in (tmp_path / "killed-0.log").read_text()
    finally:
        end(nodes)
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    alone = tmp_path / "alone"
    train(specification, packed.root, alone, 0)
    assert losses(whole)[:10] == pytest.approx(losses(alone)[:10], rel=1e-2)

"""Trainings over several gloo processes, which talk through real sockets."""

import multiprocessing
import os
import socket
from pathlib import Path

from packed_set import PackedSet

from pipeline_lib.configuration.specification import TrainingSpecification


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _train(environment: dict[str, str], specification: str, root: Path, output: Path, log: Path) -> None:
    os.environ |= environment
    from pipeline_lib.training.run import train

    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
        train(TrainingSpecification.model_validate_json(specification), root, output, 0)


def train_in_processes(specification: TrainingSpecification, packed: PackedSet, output: Path, num_ranks: int) -> str:
    """What a training printed. The processes are forked from one that has imported torch, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline_lib.training.run", "torch.utils.tensorboard"])
    shared = {"WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks, "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": free_port(), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": 1}
    logs = [output.with_name(f"{output.name}-{num_ranks}-{rank}.log") for rank in range(num_ranks)]
    processes = []
    for rank, log in enumerate(logs):
        environment = {key: str(value) for key, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
        arguments = (environment, specification.model_dump_json(), packed.root, output, log)
        processes.append(context.Process(target=_train, args=arguments))
        processes[-1].start()
    for process in processes:
        process.join(200)
    printed = [log.read_text() for log in logs]
    assert [process.exitcode for process in processes] == [0] * num_ranks, "\n".join(printed)
    return printed[0]

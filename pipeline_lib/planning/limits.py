"""How many cores and GPUs can work on a stage at a time, on a machine or with a profile."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_yaml
from pipeline_lib.planning.workload import Stage


@dataclass(frozen=True)
class Limits:
    """What works at a time.

    Attributes:
        jobs: jobs at a time; None if only the cores limit.
        cores: cores of one machine; None on a cluster.
        threads: cores per job of each rule; the default is under ``""``.
        gpus: GPUs per job of each rule.
        about: the same in words.
    """

    jobs: int | None
    cores: int | None
    threads: Mapping[str, int]
    gpus: Mapping[str, int]
    about: str

    @classmethod
    def of_machine(cls, cores: int | None, threads: int) -> Self:
        """One machine with one GPU at most; a training takes ``threads`` cores."""
        count = cores or len(os.sched_getaffinity(0))
        trainings = dict.fromkeys(("train_teacher", "train_baseline", "distill", "pretrain", "finetune"), threads)
        return cls(None, count, trainings | {"manifest": 2}, {}, f"one machine of {count} cores")

    @classmethod
    def of_profile(cls, folder: Path) -> Self:
        """A Snakemake profile.

        Raises:
            UserError: it cannot be read.
        """
        path = folder / "config.yaml" if folder.is_dir() else folder
        try:
            content: dict[str, Any] = parse_yaml(path.read_text(encoding="utf-8")) or {}
            gpus = {rule: _gpus(resources) for rule, resources in (content.get("set-resources") or {}).items()}
            jobs = content.get("jobs")
            threads = {rule: int(value) for rule, value in (content.get("set-threads") or {}).items()}
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, yaml.YAMLError) as error:
            raise UserError(f"--profile {folder}: {path} cannot be read as a profile ({error})") from error
        return cls(
            int(jobs) if isinstance(jobs, int) else None,
            None if isinstance(jobs, int) else len(os.sched_getaffinity(0)),
            threads,
            gpus,
            f"{path} ({f'{jobs} jobs at a time' if jobs else 'no limit of jobs'})",
        )

    def days(self, stage: Stage) -> float | None:
        """Days that a stage takes; None if its hours are not known."""
        if stage.cpu_hours is None or stage.gpu_hours is None:
            return None
        threads = self.threads.get(stage.rule, 1)
        parallel = stage.jobs
        if self.cores is not None:
            parallel = min(parallel, max(1, self.cores // threads))
        if self.jobs is not None:
            parallel = min(parallel, self.jobs)
        # In a job on GPUs the cores prepare the GPUs' data, so the slower of the two counts.
        cpu = stage.cpu_hours / (parallel * threads)
        gpu = stage.gpu_hours / (max(1, self.gpus.get(stage.rule, 1)) * (parallel if self.jobs is not None else 1))
        return max(cpu, gpu) / 24


def _gpus(resources: Mapping[str, Any]) -> int:
    """GPUs of one job: ``gpu``, or ``gres: gpu:N`` on each of its nodes."""
    if "gpu" in resources:
        return int(resources["gpu"])
    found = re.search(r"gpu(?::\w+)*?:(\d+)", str(resources.get("gres", "")))
    return int(found.group(1)) * int(resources.get("nodes", 1)) if found else 0

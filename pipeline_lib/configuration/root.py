"""The whole configuration: config.yaml and its overlays, the recipes, the experiments."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from pipeline_lib.configuration.base import Section
from pipeline_lib.configuration.data import Dataset, FrameFormat, Motion, Name
from pipeline_lib.configuration.download import Download
from pipeline_lib.configuration.experiments import (
    IMAGENET,
    IMPORTED,
    RANDOM,
    Ensemble,
    Experiment,
    Protocol,
    Target,
    by_place,
)
from pipeline_lib.configuration.tables import PaperTable
from pipeline_lib.configuration.training import Recipe


class Hardware(Section):
    """What a job may use."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = False
    """On a GPU, prefer deterministic kernels; the CPU always is deterministic."""
    num_threads: int = Field(default=2, ge=1)
    """Threads of a training on the CPU. Fixed, not taken from the machine: the order of float sums follows from it."""
    gpus_per_training: int = Field(default=1, ge=1, exclude=True)
    """GPUs of this machine that a training gets (torchrun starts a process for each); a cluster's profile has its own
    numbers. It changes no weights but by rounding, so it is no part of a specification, and a change reruns nothing."""
    compile: bool = False
    """Compile the network with torch.compile (pays on a GPU after some thousand steps)."""


def _kind(value: Any) -> str:
    """Tell an ensemble by its members, so that only one kind's errors are shown."""
    is_ensemble = isinstance(value, Ensemble) or (isinstance(value, dict) and "members" in value)
    return "ensemble" if is_ensemble else "experiment"


AnyExperiment = Annotated[
    Annotated[Experiment, Tag("experiment")] | Annotated[Ensemble, Tag("ensemble")], Discriminator(_kind)
]


class Configuration(Section):
    """config.yaml, merged with its overlays and with workflow/recipes and workflow/experiments."""

    output: str = "output"
    """The output root: every artefact lies below it."""
    hardware: Hardware = Hardware()
    datasets: dict[Name, Dataset]
    downloads: dict[Name, Download] = {}
    """Where videos can be fetched from; the target ``download`` fetches them, no other stage does."""
    frame_formats: dict[Name, FrameFormat]
    motions: dict[Name, Motion]
    protocols: dict[Name, Protocol]
    recipes: dict[Name, Recipe] = {}
    experiments: dict[Name, AnyExperiment] = {}
    targets: dict[Name, Target] = {}
    """Named sets of experiments; the targets ``evaluate`` and ``report`` cover those in ``select``."""
    tables: dict[Name, PaperTable] = {}
    """The tables and figures of the papers; each is a target too."""
    select: list[str] = ["demo"]
    """Experiments, targets and tables that ``evaluate`` and ``report`` cover."""
    start: str = IMAGENET
    """What ``imagenet`` means as the start of an experiment: ``imagenet``, public weights of each network's 2D
    relative; ``random``; or ``imported/NAME``, weights of your own (docs/models.md)."""
    trial: float = Field(default=1.0, gt=0, le=1)
    """Every recipe's steps and batch are multiplied by this: one number shrinks a run."""

    def named(self) -> dict[str, Target]:
        """The targets by name, complete with the experiments of their tables, and each table that has experiments."""
        found: dict[str, Target] = {}
        for name, target in self.targets.items():
            tables = [self.tables[table] for table in target.tables]
            own = [*target.experiments, *(one for table in tables for one in table.experiments)]
            pairs = [*target.compare, *(pair for table in tables for pair in table.compare)]
            changes = {"experiments": list(dict.fromkeys(own)), "compare": pairs}
            found[name] = target.model_copy(update=changes)
        for name, table in self.tables.items():
            if table.experiments:
                found[name] = Target(
                    description=f"{table.source}: {table.description}",
                    experiments=table.experiments,
                    tables=[name],
                    compare=table.compare,
                    notes=table.notes,
                )
        return found

    @field_validator("start")
    @classmethod
    def _no_experiment(cls, value: str) -> str:
        start = by_place(value)
        if start not in (RANDOM, IMAGENET) and not start.startswith(IMPORTED):
            raise ValueError(f"{value!r}: write random, imagenet, or imported/NAME (weights made by `weights import`)")
        return start

"""The whole configuration: config.yaml and its overlays, the recipes, the experiments."""

from typing import Literal

from pydantic import Field

from pipeline_lib.configuration.base import Section
from pipeline_lib.configuration.data import Dataset, FrameFormat, Motion, Name
from pipeline_lib.configuration.experiments import Ensemble, Experiment, Protocol
from pipeline_lib.configuration.training import Recipe


class Hardware(Section):
    """What a job may use."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = False
    """On a GPU, prefer deterministic kernels; the CPU always is deterministic."""


class Configuration(Section):
    """config.yaml, merged with its overlays and with workflow/recipes and workflow/experiments."""

    output: str = "output"
    """The output root: every artefact lies below it."""
    hardware: Hardware = Hardware()
    datasets: dict[Name, Dataset]
    frame_formats: dict[Name, FrameFormat]
    motions: dict[Name, Motion]
    protocols: dict[Name, Protocol]
    recipes: dict[Name, Recipe] = {}
    experiments: dict[Name, Experiment | Ensemble] = {}
    trial: float = Field(default=1.0, gt=0, le=1)
    """Every recipe's steps are multiplied by this: one number shrinks a run."""

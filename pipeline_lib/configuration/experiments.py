"""Experiments and protocols: what is trained from what, and how it is judged."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline_lib.configuration.base import Section
from pipeline_lib.configuration.objectives import Classification, Model, Objective
from pipeline_lib.configuration.training import PastEnd

PUBLISHERS = ("torchvision/", "slim/", "pyslowfast/", "maclr/", "kylemin/")
"""How the names of public weights start (pipeline_lib/models/importing/sources.py lists them)."""


RANDOM, IMAGENET, IMPORTED = "random", "imagenet", "imported/"
"""Starts that are no experiments; the last one is how the names of imported weights start."""


def by_place(start: str) -> str:
    """A start, public weights by the name of their place below the output root."""
    return f"{IMPORTED}{start}" if start.startswith(PUBLISHERS) else start


class Experiment(Section):
    """One training run per split and seed."""

    description: str
    stage: Literal["train_teacher", "train_baseline", "pretrain", "distill", "finetune"]
    """The rule that runs it."""
    dataset: str
    frame_format: str
    modality: Literal["rgb", "flow"] = "rgb"
    """What the network sees."""
    motion: str | None = None
    """The motion kind that the network or its teacher sees."""
    model: Model
    recipe: str
    recipe_changes: dict[str, Any] = {}
    """Values that replace the recipe's, e.g. ``{sampling: {num_frames: 16}}``."""
    objective: Objective = Classification()
    teacher: str | None = None
    """Experiment whose frozen network teaches."""
    start: str = RANDOM
    """The first weights: ``random``, ``imagenet`` (public weights of its 2D network, inflated over time; the
    configuration's ``start`` may name others), an experiment, or ``imported/NAME``. A public source by its own name
    (``torchvision/s3d``) means ``imported/torchvision/s3d``."""
    splits: list[int] = [1]
    seeds: list[int] = [0]
    train_share: float = Field(default=1.0, gt=0, le=1)
    """Share of each class's training videos that is used, the same in every run (low-shot learning)."""
    protocols: list[str] = ["ten_clips"]
    """How it is evaluated; a pre-training without a classifier has none."""
    retrieval: str | None = None
    """Protocol whose clips represent a video in nearest-neighbour retrieval (R@1, 5, 10) and k-NN; null: neither."""

    @property
    def networks(self) -> dict[tuple[str, ...], Model]:
        """Every network that it builds, by the key that names it."""
        return {("model",): self.model} | {("objective", key): one for key, one in self.objective.networks.items()}

    @field_validator("start")
    @classmethod
    def _public_source(cls, value: str) -> str:
        return by_place(value)


class Ensemble(Section):
    """Mean of the members' softmax scores, from their score files alone."""

    description: str
    stage: Literal["ensemble"] = "ensemble"
    members: list[str] = Field(min_length=2)
    """Experiments; ``NAME@SEED`` takes one seed of it (two seeds of one network are an ensemble too)."""
    protocols: list[str] = ["ten_clips"]


class Target(Section):
    """A named set of experiments that is trained, evaluated and reported together."""

    description: str
    experiments: list[str] = []
    tables: list[str] = []
    """Tables of papers whose experiments belong to it too; its report shows them as printed."""
    compare: list[tuple[str, str]] = []
    """Pairs of experiments whose difference the report shows; empty takes each student against its baselines."""
    notes: list[str] = []
    """Sentences under the report's title."""


class Protocol(Section):
    """How a trained network is evaluated."""

    num_clips: int | Literal["all_frames"] = 10
    """Uniformly spaced clips per video, or one clip of all frames (every ``stride``-th one), as S3D-G and D3D are
    evaluated. It is at least as long as a training clip, or as ``at_least`` says."""
    at_least: int | None = Field(default=None, ge=1)
    """Of ``all_frames``: a shorter clip is filled up to so many frames, as ``past_end`` says. S3D-G (section 3.3) pads
    to 250 frames on Mini-Kinetics and to 64 on Something-something, and does not say with what."""
    at_most: int | None = Field(default=None, ge=1)
    """Of ``all_frames``: a longer clip is cut after so many frames."""
    num_crops: Literal[1, 3] = 1
    num_frames: int | None = None
    """Frames per clip; null takes the recipe's."""
    crop: int | None = None
    """Side of the crop, pixels; null takes the recipe's."""
    past_end: PastEnd | None = None
    """What a clip holds beyond the end of its video (``loop``, ``clamp``, ``pad``); null takes the recipe's."""
    reverse: bool = False
    """Play the clips backwards (arrow of time)."""
    subset: Literal["validation", "train", "unlabelled"] = "validation"
    """Which list is evaluated; ``train`` shows what a network has memorised, ``unlabelled`` is only predicted."""

    @model_validator(mode="after")
    def _lengths_are_possible(self) -> "Protocol":
        for key in ("at_least", "at_most"):
            if getattr(self, key) is not None and self.num_clips != "all_frames":
                raise ValueError(f"{key}: it bounds the clip of `num_clips: all_frames`; other clips have `num_frames`")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least: {self.at_least} is more than at_most, {self.at_most}")
        return self

"""Specifications: everything that determines a job's artefact, as the job gets it in JSON.

A rule passes ``specification.model_dump_json()`` on the command line and as a parameter, so that a job needs no
configuration file and Snakemake reruns exactly the jobs whose specification changed. Nothing that only people read
(descriptions, the paper's numbers) is part of one.
"""

from pydantic import model_validator

from pipeline_lib.configuration.base import Section
from pipeline_lib.configuration.data import Dataset, FrameFormat, Motion
from pipeline_lib.configuration.download import Download
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.objectives import Model, Objective
from pipeline_lib.configuration.root import Hardware
from pipeline_lib.configuration.tables import PaperTable
from pipeline_lib.configuration.training import Recipe, motion_problems
from pipeline_lib.errors import UserError


class ManifestSpecification(Section):
    """What the manifest stage gets.

    A generated data set reaches ``manifest build`` in the format ``table``, with the lists and the folder that
    ``generate`` wrote (``media/{dataset}/train.csv``, ``validation.csv``) as its annotations and videos.
    """

    name: str
    dataset: Dataset


class DownloadSpecification(Section):
    """What the download stage gets."""

    name: str
    download: Download


class FramesSpecification(Section):
    """What the frames stage gets, per shard."""

    dataset: str
    frame_format: str
    frames: FrameFormat
    on_decode_error: str


class MotionSpecification(Section):
    """What the motion stage gets, per shard."""

    dataset: str
    frame_format: str
    motion: str
    motion_kind: Motion
    device: str


class TrainingSpecification(Section):
    """What the trainer gets. ``teacher`` and ``start`` name runs whose weights are inputs of the job.

    ``start`` is ``{experiment}/{split}-{seed}`` (below ``experiments/``), or ``imported/{name}`` for weights
    that were imported, or ``random``. The recipe holds the experiment's changes and the trial factor already.
    """

    experiment: str
    stage: str
    split: int
    seed: int
    dataset: str
    horizontal_flip: str
    train_share: float = 1.0
    num_shards: int
    frame_format: str
    modality: str
    motion: str | None
    motion_kind: Motion | None
    model: Model
    recipe: Recipe
    objective: Objective
    teacher: "TrainingSpecification | None"
    start: str
    hardware: Hardware

    @model_validator(mode="after")
    def _objective_fits(self) -> "TrainingSpecification":
        """The same checks as of a configuration, because a specification may be written by hand."""
        if self.objective.needs_teacher and self.teacher is None:
            raise UserError(f"experiment {self.experiment}: the objective {self.objective.name} needs a teacher")
        beside = self.objective.reads_motion or (self.teacher is not None and self.teacher.modality == "flow")
        for key, text in (
            *self.objective.recipe_problems(self.recipe),
            *motion_problems(self.recipe, self.modality, beside),
        ):
            raise UserError(f"experiment {self.experiment}: recipe.{key}: {text}")
        return self


class EvaluationSpecification(Section):
    """What the evaluation gets: the run whose weights are judged, the protocol, and the task that it is judged by."""

    task: str = "classification"

    training: TrainingSpecification
    protocol_name: str
    protocol: Protocol


class EnsembleSpecification(Section):
    """What an ensemble's evaluation gets: its inputs are score files, not networks.

    ``members`` are runs, ``{experiment}/{split}-{seed}``, in the order of the score files.
    """

    task: str = "classification"
    experiment: str
    split: int
    seed: int
    members: list[str]
    protocol_name: str
    protocol: Protocol


class PrintedNumbers(Section):
    """What one row of a paper's table prints for an experiment under one protocol."""

    source: str
    """``D3D, Table 2``."""
    protocol: str
    figures: dict[str, float]
    """Figure (``pipeline_lib.configuration.tables.FIGURES``) → number as printed."""
    differs: str | None = None
    """Where our experiment is known not to be the paper's."""


class ReportedExperiment(Section):
    """What the report gets about one experiment or ensemble: which runs it has, and what people read about it."""

    name: str
    description: str
    stage: str
    dataset: str
    """The data set that it (or an ensemble's members) is evaluated on."""
    modality: str
    """``rgb``, ``flow``, or of an ensemble the members' joined by ``+``."""
    frame_format: str | None = None
    motion: str | None = None
    model: str | None = None
    teacher: str | None = None
    start: str | None = None
    """The weights that its training starts from: an experiment, public weights, or ``random``."""
    members: list[str] = []
    splits: list[int]
    seeds: list[int]
    protocols: list[str]
    retrieval: str | None = None
    network: Model | None = None
    """With all its options."""
    clip: tuple[int, int] | None = None
    """Frames and side (pixels) of the clips that it is trained on."""
    printed: list[PrintedNumbers] = []
    """What the papers print for it; the first of a protocol is the one that is compared."""
    differs: list[str] = []
    """What it differs in from the paper's experiment."""


class ReportSpecification(Section):
    """What the report gets; score files, metrics, training logs, summaries and a shard of each kind are its inputs."""

    name: str
    title: str
    experiments: list[ReportedExperiment]
    tables: dict[str, PaperTable] = {}
    """Tables of papers that are shown as printed, ours beside them."""
    compare: list[tuple[str, str]] = []
    """Pairs of experiments whose difference is shown; empty takes each student against its baselines."""
    notes: list[str] = []
    """Sentences under the title: what kind of run this is (a trial, a generated data set)."""

"""One run: where its artefacts lie, what its jobs get, and which runs it starts or learns from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline_lib.artefacts.layout import Layout, shard_names
from pipeline_lib.configuration.experiments import IMAGENET, IMPORTED, Ensemble, Experiment
from pipeline_lib.configuration.messages import nearest, parsed
from pipeline_lib.configuration.networks import ImageNet
from pipeline_lib.configuration.objectives import Model
from pipeline_lib.configuration.references import member_name
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.configuration.specification import (
    EnsembleSpecification,
    EvaluationSpecification,
    TrainingSpecification,
)
from pipeline_lib.configuration.training import Recipe, merged
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import NETWORKS, resolve


def with_catalogue_options(model: Model) -> Model:
    """The network with all its options, so that an edit to the catalogue changes the specification."""
    return Model(name=model.name, options=resolve(model.name)[1] | model.options)


@dataclass(frozen=True)
class Run:
    """One training of an experiment, or one combination of an ensemble's members.

    ``Plan.run`` makes them and says which exist.

    Attributes:
        experiment: name of the experiment or the ensemble.
        split: of its data set, from 1.
        seed: of the training.
        configuration: a checked configuration; runs of one configuration are compared by the other three.
    """

    experiment: str
    split: int
    seed: int
    configuration: Configuration = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.experiment}/{self.split}-{self.seed}"

    @property
    def entry(self) -> Experiment | Ensemble:
        """Its section of the configuration."""
        return self.configuration.experiments[self.experiment]

    @property
    def trained(self) -> Experiment:
        """Its section of the configuration, if it is a training.

        Raises:
            UserError: it is an ensemble's.
        """
        entry = self.entry
        if not isinstance(entry, Experiment):
            experiments = self.configuration.experiments.items()
            names = [name for name, other in experiments if isinstance(other, Experiment)]
            raise UserError(f"There is no experiment `{self.experiment}` to train. {nearest(self.experiment, names)}")
        return entry

    # Where its artefacts lie

    @cached_property
    def layout(self) -> Layout:
        """All paths below the configuration's output root."""
        return Layout(Path(self.configuration.output))

    @property
    def place(self) -> tuple[str, str, str]:
        """Experiment, split and seed, as ``Layout`` takes them."""
        return self.experiment, str(self.split), str(self.seed)

    @property
    def folder(self) -> Path:
        """The training's folder: checkpoints, log and weights."""
        return self.layout.experiment(*self.place)

    @property
    def weights(self) -> Path:
        """The final weights."""
        return self.layout.weights(*self.place)

    def scores(self, protocol: str) -> Path:
        """The score file under a protocol."""
        return self.layout.scores(*self.place, protocol)

    @property
    def metrics(self) -> list[Path]:
        """The metrics under each of its protocols."""
        return [self.layout.metrics(*self.place, protocol) for protocol in self.entry.protocols]

    @property
    def retrievals(self) -> list[Path]:
        """The nearest-neighbour figures; none if the experiment does not ask for them."""
        entry = self.entry
        asked = entry.retrieval if isinstance(entry, Experiment) else None
        return [] if asked is None else [self.layout.retrieval(*self.place, asked)]

    # What it starts or learns from

    def _source(self, name: str) -> "Run":
        """The run of experiment ``name`` that this one starts or learns from.

        It has the same split if both use one data set, because a network of another split has seen this one's
        validation videos; otherwise the first split. It has the same seed if there is one; otherwise the first seed.

        Raises:
            UserError: the experiment has no such split.
        """
        source = Run(name, self.split, self.seed, self.configuration).trained
        split = self.split
        if source.dataset != self.trained.dataset:
            split = source.splits[0]
        elif split not in source.splits:
            raise UserError(
                f"experiments.{self.experiment}: it starts from {name}, which has no split {split} "
                f"(experiments.{name}.splits: {source.splits}); the network of another split has seen its "
                "validation videos."
            )
        seed = self.seed if self.seed in source.seeds else source.seeds[0]
        return Run(name, split, seed, self.configuration)

    @cached_property
    def teacher(self) -> "Run | None":
        """The run whose network teaches it."""
        name = self.trained.teacher
        return None if name is None else self._source(name)

    @cached_property
    def start(self) -> "Run | None":
        """The run whose weights it starts from; None if it starts from random or imported weights."""
        name = self.trained.start
        return self._source(name) if name in self.configuration.experiments else None

    @property
    def imagenet(self) -> ImageNet | None:
        """The public ImageNet weights that it starts from, or the experiments that it starts from do."""
        if self.start is not None:
            return self.start.imagenet
        if (self.trained.start, self.configuration.start) != (IMAGENET, IMAGENET):
            return None
        kind = NETWORKS[self.trained.model.name]
        options = parsed(kind.options_model, kind.options | self.trained.model.options, "model.options")
        return options.imagenet

    @property
    def first_weights(self) -> str:
        """The start as the trainer gets it: a run, imported weights, or ``random``."""
        if self.start is not None:
            return str(self.start)
        if self.imagenet is not None:
            return IMPORTED + self.imagenet.source
        return self.configuration.start if self.trained.start == IMAGENET else self.trained.start

    @property
    def start_in_words(self) -> str:
        """The start as people read it: an experiment, ``imagenet (source)``, imported weights, or ``random``."""
        if self.start is not None:
            return self.start.experiment
        return self.first_weights if self.imagenet is None else f"{IMAGENET} ({self.imagenet.source})"

    @property
    def named_model(self) -> Model:
        """Its network by name, with the options that differ from the name's, those for its first weights among them."""
        own = self.trained.model
        return own if self.imagenet is None else Model(name=own.name, options=self.imagenet.options | own.options)

    @property
    def model(self) -> Model:
        """Its network with all options."""
        return with_catalogue_options(self.named_model)

    @cached_property
    def members(self) -> list["Run"]:
        """The runs that an ensemble combines; none for a training."""
        if isinstance(self.entry, Experiment):
            return []
        members = [member_name(member) for member in self.entry.members]
        return [
            Run(name, self.split, self.seed if seed is None else seed, self.configuration) for name, seed in members
        ]

    @property
    def sources(self) -> list["Run"]:
        """The runs whose artefacts its job reads: teacher and start, or an ensemble's members."""
        if isinstance(self.entry, Ensemble):
            return self.members
        return [run for run in (self.teacher, self.start) if run is not None]

    @property
    def source_weights(self) -> list[Path]:
        """The weights that a training starts or learns from, imported ones among them."""
        files = [run.weights for run in self.sources]
        if self.first_weights.startswith(IMPORTED):
            files.append(self.layout.start(self.first_weights))
        return files

    # What it reads

    @property
    def dataset(self) -> str:
        """The data set that it is evaluated on; an ensemble's is its members'."""
        entry = self.entry
        return self.members[0].dataset if isinstance(entry, Ensemble) else entry.dataset

    @property
    def motion(self) -> str | None:
        """The motion kind that its network or its teacher sees."""
        experiment = self.trained
        if experiment.motion is not None or experiment.teacher is None:
            return experiment.motion
        return Run(experiment.teacher, self.split, self.seed, self.configuration).motion

    @property
    def task(self) -> str:
        """What it is judged by. Features of a network without a classifier are compared by the videos' classes."""
        if isinstance(self.entry, Ensemble):
            return self.members[0].task
        return self.trained.objective.task or "classification"

    @property
    def reads_motion(self) -> bool:
        """Whether its training reads motion: for the network, the teacher, or the objective."""
        networks = [self, *([] if self.teacher is None else [self.teacher])]
        return self.trained.objective.reads_motion or any(run.trained.modality == "flow" for run in networks)

    @property
    def training_shards(self) -> list[Path]:
        """The shards that the training reads, and the tables of strength if the objective needs them."""
        shards = self._shards(self.reads_motion)
        if self.trained.objective.needs_strength:
            shards += self._motion(self.layout.strength)
        return shards

    @property
    def evaluation_shards(self) -> list[Path]:
        """The shards that an evaluation reads: motion only if the network sees it, even if its teacher does."""
        return self._shards(self.trained.modality == "flow")

    def _shards(self, with_motion: bool) -> list[Path]:
        # A network that sees only flow needs the frames shards too: they hold the table of videos.
        shards = [self.layout.frames(self.dataset, self.trained.frame_format, shard) for shard in self._names]
        return shards + (self._motion(self.layout.motion) if with_motion else [])

    def _motion(self, path: Callable[[str, str, str, str], Path]) -> list[Path]:
        assert self.motion is not None  # checked with the references
        return [path(self.dataset, self.trained.frame_format, self.motion, shard) for shard in self._names]

    @property
    def _names(self) -> list[str]:
        return shard_names(self.configuration.datasets[self.dataset].shards)

    # What its jobs get

    @property
    def recipe(self) -> Recipe:
        """The experiment's recipe with its changes, shrunk by the trial factor.

        Its ``source`` is left out, because another wording for readers must not train anything again.
        """
        recipe = self.configuration.recipes[self.trained.recipe]
        changes = self.trained.recipe_changes
        if changes:
            # Checked with the references.
            recipe = Recipe.model_validate(merged(recipe.model_dump(mode="json"), changes))
        return recipe.shrunk(self.configuration.trial).model_copy(update={"source": ""})

    @cached_property
    def training(self) -> TrainingSpecification:
        """What ``train`` gets.

        Raises:
            UserError: it is not a training, or a source lacks its split.
        """
        experiment = self.trained
        dataset = self.configuration.datasets[experiment.dataset]
        networks = experiment.objective.networks.items()
        objective = experiment.objective.model_copy(
            update={key: with_catalogue_options(model) for key, model in networks}
        )
        return TrainingSpecification(
            experiment=self.experiment,
            stage=experiment.stage,
            split=self.split,
            seed=self.seed,
            dataset=experiment.dataset,
            horizontal_flip=dataset.horizontal_flip,
            num_shards=dataset.shards,
            train_share=experiment.train_share,
            frame_format=experiment.frame_format,
            modality=experiment.modality,
            motion=self.motion,
            motion_kind=None if self.motion is None else self.configuration.motions[self.motion],
            model=self.model,
            recipe=self.recipe,
            objective=objective,
            teacher=None if self.teacher is None else self.teacher.training,
            start=self.first_weights,
            hardware=self.configuration.hardware,
        )

    def evaluation(self, protocol: str) -> EvaluationSpecification:
        """What ``evaluate`` and ``retrieve`` get."""
        return EvaluationSpecification(
            task=self.task,
            training=self.training,
            protocol_name=protocol,
            protocol=self.configuration.protocols[protocol],
        )

    def ensemble(self, protocol: str) -> EnsembleSpecification:
        """What ``ensemble`` gets."""
        return EnsembleSpecification(
            task=self.task,
            experiment=self.experiment,
            split=self.split,
            seed=self.seed,
            members=[str(member) for member in self.members],
            protocol_name=protocol,
            protocol=self.configuration.protocols[protocol],
        )


def with_sources(runs: Iterable[Run]) -> list[Run]:
    """The runs and all that they start or learn from, each once, nearest first."""
    found: dict[Run, None] = {}
    waiting = list(runs)
    while waiting:
        run = waiting.pop(0)
        if run not in found:
            found[run] = None
            waiting += run.sources
    return list(found)

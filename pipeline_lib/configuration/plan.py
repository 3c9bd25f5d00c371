"""From a checked configuration to jobs: the specification of each, and the artefacts that it reads.

The rules ask an object of this class and contain no logic of their own.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pipeline_lib.configuration.data_plan import DataPlan
from pipeline_lib.configuration.experiments import Ensemble, Experiment
from pipeline_lib.configuration.messages import nearest
from pipeline_lib.configuration.objectives import Model, Objective
from pipeline_lib.configuration.references import IMPORTED, member_name
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.configuration.specification import (
    EnsembleSpecification,
    EvaluationSpecification,
    ReportedExperiment,
    ReportSpecification,
    TrainingSpecification,
)
from pipeline_lib.configuration.training import Recipe, merged
from pipeline_lib.errors import UserError

# The report on what the configuration selects.
SELECTED = "selected"


class Run(NamedTuple):
    """One training run, or one combination of an ensemble's members."""

    experiment: str
    split: int
    seed: int

    def __str__(self) -> str:
        return f"{self.experiment}/{self.split}-{self.seed}"


Resolve = Callable[[str], tuple[str, dict[str, Any]]]


class Plan(DataPlan):
    """The jobs of one configuration.

    Args:
        configuration: a checked configuration.
        resolve: the catalogue of networks: name → module that builds it, options
            (``pipeline_lib.models.catalogue.resolve``).

    Raises:
        UserError: an experiment names a network that does not exist.
    """

    def __init__(self, configuration: Configuration, resolve: Resolve) -> None:
        super().__init__(configuration)
        self._training: dict[Run, TrainingSpecification] = {}
        self._networks: dict[str, tuple[str, dict[str, Any]]] = {}
        for name, entry in configuration.experiments.items():
            for key, model in entry.networks.items() if isinstance(entry, Experiment) else ():
                try:
                    self._networks[model.name] = resolve(model.name)
                except UserError as error:
                    raise UserError(f"experiments.{name}.{'.'.join(key)}: {error}") from None

    def model(self, model: Model) -> Model:
        """A network with all its options: an edit to the catalogue is an edit to the specification."""
        return Model(name=model.name, options=self._networks[model.name][1] | model.options)

    def objective(self, experiment: Experiment) -> Objective:
        """The objective; its networks too have all options of the catalogue."""
        objective = experiment.objective
        return objective.model_copy(update={key: self.model(model) for key, model in objective.networks.items()})

    # Names

    def experiment(self, name: str) -> Experiment:
        """An experiment that is trained.

        Raises:
            UserError: there is none of that name, or it is an ensemble.
        """
        entry = self.configuration.experiments.get(name)
        if not isinstance(entry, Experiment):
            trained = [
                other for other, value in self.configuration.experiments.items() if isinstance(value, Experiment)
            ]
            raise UserError(f"There is no experiment `{name}` to train. {nearest(name, trained)}")
        return entry

    def names_of_stage(self, stage: str) -> list[str]:
        """The experiments that the rule of this name runs."""
        return [name for name, entry in self.configuration.experiments.items() if entry.stage == stage]

    @cached_property
    def trained_names(self) -> list[str]:
        """The experiments that have weights of their own."""
        return [name for name, entry in self.configuration.experiments.items() if isinstance(entry, Experiment)]

    @cached_property
    def generated_names(self) -> list[str]:
        """The data sets that are generated."""
        return [name for name, dataset in self.configuration.datasets.items() if dataset.format == "generated"]

    def dataset_of(self, name: str) -> str:
        """The data set that an experiment or an ensemble is evaluated on."""
        entry = self.configuration.experiments[name]
        if isinstance(entry, Ensemble):
            return self.dataset_of(member_name(entry.members[0])[0])
        return entry.dataset

    def experiments_of(self, names: Iterable[str]) -> list[str]:
        """The experiments that names of experiments and targets stand for, each once, in order."""
        found: dict[str, None] = {}
        for name in names:
            target = self.configuration.targets.get(name)
            for experiment in [name] if target is None else target.experiments:
                found[experiment] = None
        return list(found)

    # Training

    def runs(self, name: str) -> list[Run]:
        """The runs of an experiment (splits × seeds), or of an ensemble (what its members have in common)."""
        entry = self.configuration.experiments[name]
        if isinstance(entry, Experiment):
            return [Run(name, split, seed) for split in entry.splits for seed in entry.seeds]
        members = [member_name(member) for member in entry.members]
        splits = [set(self.experiment(source).splits) for source, _ in members]
        seeds = [set(self.experiment(source).seeds) for source, seed in members if seed is None]
        common_splits = sorted(set.intersection(*splits))
        common_seeds = sorted(set.intersection(*seeds)) if seeds else [0]
        if not common_splits or not common_seeds:
            raise UserError(f"experiments.{name}: its members have no split or no seed in common.")
        return [Run(name, split, seed) for split in common_splits for seed in common_seeds]

    def source_run(self, name: str, run: Run) -> Run:
        """The run of experiment ``name`` that ``run`` starts or learns from.

        The same split if both use one data set, so that nobody learns from a network that has seen its validation
        clips; the same seed where there is one. Else the first.
        """
        source = self.experiment(name)
        if source.dataset == self.experiment(run.experiment).dataset:
            if run.split not in source.splits:
                raise UserError(
                    f"experiments.{run.experiment}: it starts from {name}, which has not the split {run.split} "
                    f"(experiments.{name}.splits: {source.splits}); another split's network has seen its "
                    "validation clips."
                )
            split = run.split
        else:
            split = source.splits[0]
        return Run(name, split, run.seed if run.seed in source.seeds else source.seeds[0])

    def recipe(self, name: str) -> Recipe:
        """An experiment's recipe with its changes, shortened by the trial factor.

        Its ``source`` is left out: a sentence for readers, whose rewording must not train anything again.
        """
        experiment = self.experiment(name)
        recipe = self.configuration.recipes[experiment.recipe]
        if experiment.recipe_changes:
            # Checked with the references.
            recipe = Recipe.model_validate(merged(recipe.model_dump(mode="json"), experiment.recipe_changes))
        return recipe.shrunk(self.configuration.trial).model_copy(update={"source": ""})

    def motion_of(self, name: str) -> str | None:
        """The motion kind that an experiment's network or its teacher sees."""
        experiment = self.experiment(name)
        if experiment.motion is None and experiment.teacher is not None:
            return self.motion_of(experiment.teacher)
        return experiment.motion

    def training(self, run: Run) -> TrainingSpecification:
        """What ``train`` gets.

        Raises:
            UserError: the run does not exist, or its sources do not fit.
        """
        if run in self._training:
            return self._training[run]
        experiment = self.experiment(run.experiment)
        if run.split not in experiment.splits or run.seed not in experiment.seeds:
            raise UserError(
                f"There is no run {run}: experiments.{run.experiment} has the splits {experiment.splits} and the "
                f"seeds {experiment.seeds}."
            )
        configuration = self.configuration
        dataset = configuration.datasets[experiment.dataset]
        motion = self.motion_of(run.experiment)
        teacher, start = experiment.teacher, experiment.initialise_from
        if start is not None and not start.startswith(IMPORTED):
            start = str(self.source_run(start, run))
        specification = TrainingSpecification(
            experiment=run.experiment,
            stage=experiment.stage,
            split=run.split,
            seed=run.seed,
            dataset=experiment.dataset,
            horizontal_flip=dataset.horizontal_flip,
            num_shards=dataset.num_shards,
            train_share=experiment.train_share,
            frame_format=experiment.frame_format,
            modality=experiment.modality,
            motion=motion,
            motion_kind=None if motion is None else configuration.motions[motion],
            model=self.model(experiment.model),
            recipe=self.recipe(run.experiment),
            objective=self.objective(experiment),
            teacher=None if teacher is None else self.training(self.source_run(teacher, run)),
            initialise_from=start,
            hardware=configuration.hardware,
        )
        self._training[run] = specification
        return specification

    def sees_flow(self, run: Run, with_teacher: bool) -> bool:
        """Whether the network (or the teacher or the flow loss that it learns from) sees flow."""
        specification = self.training(run)
        if with_teacher and specification.objective.reads_motion:
            return True
        teacher = specification.teacher if with_teacher else None
        return "flow" in (specification.modality, teacher.modality if teacher is not None else None)

    def training_shards(self, run: Run) -> list[Path]:
        """The shards that a training run reads, and the tables of their motion's strength where it asks for them."""
        shards = self._shards(run, self.sees_flow(run, with_teacher=True))
        specification = self.training(run)
        if specification.objective.needs_strength:
            assert specification.motion is not None  # checked with the references
            place = (specification.dataset, specification.frame_format, specification.motion)
            shards += [self.layout.strength(*place, shard) for shard in self.shards(specification.dataset)]
        return shards

    def evaluation_shards(self, run: Run) -> list[Path]:
        """The shards that an evaluation reads: no flow where the network sees none, even if its teacher did."""
        return self._shards(run, self.sees_flow(run, with_teacher=False))

    def _shards(self, run: Run, with_motion: bool) -> list[Path]:
        # The frames shards hold the table of videos also for a network that sees flow alone.
        specification = self.training(run)
        place = (specification.dataset, specification.frame_format)
        shards = self.frame_shards(*place)
        if with_motion:
            assert specification.motion is not None  # checked with the references
            shards += self.motion_shards(*place, specification.motion)
        return shards

    def weights(self, run: Run) -> Path:
        """A run's final weights."""
        return self.layout.weights(run.experiment, str(run.split), str(run.seed))

    def source_weights(self, run: Run) -> list[Path]:
        """The weights that a training run starts or learns from."""
        experiment = self.experiment(run.experiment)
        files: list[Path] = []
        if experiment.teacher is not None:
            files.append(self.weights(self.source_run(experiment.teacher, run)))
        start = experiment.initialise_from
        if start is not None:
            imported = start.startswith(IMPORTED)
            files.append(
                self.layout.imported(start.removeprefix(IMPORTED))
                if imported
                else self.weights(self.source_run(start, run))
            )
        return files

    # Evaluation

    def evaluation(self, run: Run, protocol: str) -> EvaluationSpecification:
        """What ``evaluate`` gets."""
        return EvaluationSpecification(
            training=self.training(run),
            protocol_name=protocol,
            protocol=self.configuration.protocols[protocol],
        )

    def members(self, run: Run) -> list[Run]:
        """The runs that an ensemble's run combines."""
        entry = self.configuration.experiments[run.experiment]
        assert isinstance(entry, Ensemble)
        found: list[Run] = []
        for member in entry.members:
            name, seed = member_name(member)
            found.append(Run(name, run.split, run.seed if seed is None else seed))
        return found

    def ensemble(self, run: Run, protocol: str) -> EnsembleSpecification:
        """What ``ensemble`` gets."""
        return EnsembleSpecification(
            experiment=run.experiment,
            split=run.split,
            seed=run.seed,
            members=[str(member) for member in self.members(run)],
            protocol_name=protocol,
            protocol=self.configuration.protocols[protocol],
        )

    def scores(self, run: Run, protocol: str) -> Path:
        """A run's score file."""
        return self.layout.scores(run.experiment, str(run.split), str(run.seed), protocol)

    def metrics(self, names: Iterable[str]) -> list[Path]:
        """The metrics of every run and protocol of some experiments."""
        return [
            self.layout.metrics(run.experiment, str(run.split), str(run.seed), protocol)
            for name in names
            for run in self.runs(name)
            for protocol in self.configuration.experiments[name].protocols
        ]

    def retrievals(self, names: Iterable[str]) -> list[Path]:
        """The nearest-neighbour figures of every run of those experiments that ask for them."""
        found = []
        for name in names:
            entry = self.configuration.experiments[name]
            if isinstance(entry, Experiment) and entry.retrieval is not None:
                found += [
                    self.layout.retrieval(name, str(run.split), str(run.seed), entry.retrieval)
                    for run in self.runs(name)
                ]
        return found

    def intermediates(self, names: Iterable[str]) -> list[Path]:
        """The shards and weights behind some experiments, with all that they start or learn from.

        Snakemake makes a deleted file again only where a target names it: a finished report wants for nothing.
        """
        found: dict[Path, None] = {}
        waiting = [run for name in names for run in self.runs(name)]
        seen = set[Run]()
        while waiting:
            run = waiting.pop(0)
            if run in seen:
                continue
            seen.add(run)
            entry = self.configuration.experiments[run.experiment]
            if isinstance(entry, Ensemble):
                waiting += self.members(run)
                continue
            found.update(dict.fromkeys([*self.training_shards(run), *self.source_weights(run), self.weights(run)]))
            sources = (entry.teacher, entry.initialise_from)
            waiting += [self.source_run(name, run) for name in sources if name in self.configuration.experiments]
        return list(found)

    # The report

    def reported(self, name: str) -> ReportedExperiment:
        """What the report says of one experiment or ensemble."""
        entry = self.configuration.experiments[name]
        runs = self.runs(name)
        common: dict[str, Any] = {
            "name": name,
            "description": entry.description,
            "stage": entry.stage,
            "dataset": self.dataset_of(name),
            "splits": sorted({run.split for run in runs}),
            "seeds": sorted({run.seed for run in runs}),
            "protocols": entry.protocols,
            "paper": entry.paper,
        }
        if isinstance(entry, Ensemble):
            modalities = [self.experiment(member_name(member)[0]).modality for member in entry.members]
            return ReportedExperiment(**common, modality="+".join(modalities), members=entry.members)
        return ReportedExperiment(
            **common,
            modality=entry.modality,
            frame_format=entry.frame_format,
            motion=self.motion_of(name),
            model=entry.model.name,
            teacher=entry.teacher,
            initialise_from=entry.initialise_from,
            retrieval=entry.retrieval,
        )

    def report(self, name: str) -> ReportSpecification:
        """What ``report`` gets: of a target, an experiment, or (``selected``) of everything that ``select`` names."""
        target, experiment = self.configuration.targets.get(name), self.configuration.experiments.get(name)
        names = self.experiments_of(self.configuration.select if target is None and experiment is None else [name])
        described = target or experiment
        return ReportSpecification(
            name=name,
            title="Selected experiments" if described is None else described.description,
            experiments=[self.reported(experiment) for experiment in names],
            compare=[] if target is None else target.compare,
            notes=[] if target is None else target.notes,
        )

    @cached_property
    def report_names(self) -> list[str]:
        """What a report can be asked for: each target, each experiment, and what the configuration selects."""
        return [*self.configuration.targets, *self.configuration.experiments, SELECTED]

    def report_datasets(self, name: str) -> list[str]:
        """The data sets behind a report."""
        return self.datasets_behind(reported.name for reported in self.report(name).experiments)

    def report_inputs(self, name: str) -> list[Path]:
        """The results that a report shows: metrics and scores, and the weights beside which the training logs lie."""
        names = [reported.name for reported in self.report(name).experiments]
        metrics = self.metrics(names)
        scores = [path.with_name("scores.h5") for path in metrics]
        weights = [self.weights(run) for name in names if name in self.trained_names for run in self.runs(name)]
        return [*metrics, *scores, *self.retrievals(names), *weights]

    def datasets_behind(self, names: Iterable[str]) -> list[str]:
        """The data sets that experiments need, with those of all that they start from; each once, in order."""
        found: dict[str, None] = {}
        waiting, seen = list(names), set[str]()
        while waiting:
            name = waiting.pop(0)
            if name in seen or name not in self.configuration.experiments:
                continue
            seen.add(name)
            entry = self.configuration.experiments[name]
            found[self.dataset_of(name)] = None
            if isinstance(entry, Ensemble):
                waiting += [member_name(member)[0] for member in entry.members]
            else:
                waiting += [source for source in (entry.teacher, entry.initialise_from) if source is not None]
        return list(found)

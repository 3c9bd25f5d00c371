"""What one section of the configuration says of another: names must exist, and no experiment may start from itself."""

import json
from collections.abc import Collection, Iterable, Mapping

from pydantic import ValidationError

from pipeline_lib.configuration.experiments import Ensemble, Experiment
from pipeline_lib.configuration.merging import Key, Sources
from pipeline_lib.configuration.messages import nearest, one_message, problem_of
from pipeline_lib.configuration.objectives import Model
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.configuration.training import Recipe, merged

IMPORTED = "imported/"


def member_name(member: str) -> tuple[str, int | None]:
    """Split an ensemble's member ``NAME@SEED`` (the seed is optional)."""
    name, at, seed = member.partition("@")
    return name, int(seed) if at and seed.isdecimal() else None


def ancestors(configuration: Configuration, name: str) -> list[str]:
    """The experiments that ``name`` starts from directly, those that exist."""
    experiment = configuration.experiments.get(name)
    if isinstance(experiment, Ensemble):
        names = [member_name(member)[0] for member in experiment.members]
    elif experiment is None:
        names = []
    else:
        names = [source for source in (experiment.teacher, experiment.initialise_from) if source is not None]
    return [source for source in names if source in configuration.experiments]


def _cycles(configuration: Configuration) -> list[list[str]]:
    """Each ring of experiments that start from each other, once, from its first name in the alphabet."""
    found: dict[tuple[str, ...], list[str]] = {}
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            ring = path[path.index(name) :]
            start = ring.index(min(ring))
            ring = ring[start:] + ring[:start]
            found[tuple(ring)] = ring
            return
        if name in finished:
            return
        for source in ancestors(configuration, name):
            visit(source, [*path, name])
        finished.add(name)

    for name in sorted(configuration.experiments):
        visit(name, [])
    return list(found.values())


class _Checks:
    def __init__(
        self, configuration: Configuration, sources: Sources, networks: Mapping[str, Collection[str]] | None
    ) -> None:
        self.configuration = configuration
        self.sources = sources
        self.networks = networks
        self.problems: list[str] = []

    def problem(self, key: Key, text: str) -> None:
        self.problems.append(f"{self.sources.origin(key)}: {'.'.join(key)}: {text}")

    def known(self, key: Key, kind: str, name: str, valid: Iterable[str]) -> bool:
        names = list(valid)
        if name not in names:
            self.problem(key, f"there is no {kind} `{name}`. {nearest(name, names)}")
        return name in names

    def dataset(self, name: str) -> None:
        dataset = self.configuration.datasets[name]
        key = ("datasets", name)
        if (dataset.format == "generated") != (dataset.generated is not None):
            self.problem((*key, "generated"), "a data set has this section exactly when its format is `generated`.")

    def experiment(self, name: str, experiment: Experiment) -> None:
        key = ("experiments", name)
        configuration, objective = self.configuration, experiment.objective
        if self.known((*key, "dataset"), "data set", experiment.dataset, configuration.datasets):
            num_splits = configuration.datasets[experiment.dataset].num_splits
            for split in experiment.splits:
                if not 1 <= split <= num_splits:
                    self.problem(
                        (*key, "splits"),
                        f"there is no split {split}: {experiment.dataset} has {num_splits}, counted from 1.",
                    )
        self.known((*key, "frame_format"), "frame format", experiment.frame_format, configuration.frame_formats)
        if self.known((*key, "recipe"), "recipe", experiment.recipe, configuration.recipes):
            self.recipe((*key, "recipe_changes"), experiment)
        for below, model in experiment.networks.items():
            self.network((*key, *below), model)
        for protocol in experiment.protocols:
            self.known((*key, "protocols"), "protocol", protocol, configuration.protocols)
        if experiment.retrieval is not None:
            self.known((*key, "retrieval"), "protocol", experiment.retrieval, configuration.protocols)
        if experiment.motion is not None:
            self.known((*key, "motion"), "motion", experiment.motion, configuration.motions)
        elif experiment.modality == "flow":
            self.problem((*key, "motion"), "an experiment with `modality: flow` names the motion kind that it sees.")
        elif objective.reads_motion:
            self.problem((*key, "motion"), f"the objective `{objective.name}` names the motion kind that it learns.")
        if experiment.modality not in objective.modalities:
            sees = " or ".join(objective.modalities)
            self.problem((*key, "modality"), f"the network of the objective `{objective.name}` sees {sees}.")
        if objective.task is None and experiment.protocols:
            self.problem(
                (*key, "protocols"), f"the objective `{objective.name}` trains no classifier to evaluate; write []."
            )
        for field in ("splits", "seeds", "protocols"):
            values = getattr(experiment, field)
            optional = field == "protocols" and objective.task is None
            if len(set(values)) != len(values) or not (values or optional):
                self.problem((*key, field), f"{values!r}: at least one, each once.")
        if any(seed < 0 for seed in experiment.seeds):
            self.problem((*key, "seeds"), "a seed is not negative.")
        self.source(key, experiment)

    def network(self, key: Key, model: Model) -> None:
        if self.networks is not None and self.known((*key, "name"), "network", model.name, self.networks):
            for option in model.options:
                self.known((*key, "options", option), f"option of {model.name}", option, self.networks[model.name])

    def recipe(self, key: Key, experiment: Experiment) -> None:
        base = self.configuration.recipes[experiment.recipe]
        values = merged(base.model_dump(mode="json"), experiment.recipe_changes)
        try:
            recipe = Recipe.model_validate_json(json.dumps(values), strict=True)
            for field, text in experiment.objective.recipe_problems(recipe):
                self.problem((*key, field), f"{text}.")
        except ValidationError as error:
            for item in error.errors(include_url=False):
                below, text = problem_of(item, Recipe, values)  # type: ignore[arg-type]
                self.problem((*key, *below), text)

    def source(self, key: Key, experiment: Experiment) -> None:
        trained = {
            name: other for name, other in self.configuration.experiments.items() if isinstance(other, Experiment)
        }
        objective = experiment.objective
        if experiment.teacher is None and objective.needs_teacher:
            self.problem(
                (*key, "teacher"), f"the objective `{objective.name}` needs a teacher: the name of an experiment."
            )
        if experiment.teacher is not None:
            if not objective.needs_teacher:
                self.problem((*key, "teacher"), f"the objective `{objective.name}` has no use for a teacher.")
            self.known((*key, "teacher"), "experiment", experiment.teacher, trained)
            teacher = trained.get(experiment.teacher)
            if teacher is not None and experiment.motion not in (None, teacher.motion):
                self.problem(
                    (*key, "motion"),
                    f"`{experiment.motion}` is not what the teacher {experiment.teacher} sees: `{teacher.motion}`.",
                )
        start = experiment.initialise_from
        if start is not None and "/" in start:
            if not start.startswith(IMPORTED):
                self.problem(
                    (*key, "initialise_from"),
                    f"`{start}` is neither an experiment nor `{IMPORTED}NAME` (weights made by `weights import`).",
                )
        elif start is not None:
            self.known((*key, "initialise_from"), "experiment", start, trained)

    def ensemble(self, name: str, ensemble: Ensemble) -> None:
        key = ("experiments", name, "members")
        experiments = self.configuration.experiments
        trained = {other for other in experiments if isinstance(experiments[other], Experiment)}
        members: list[Experiment] = []
        for member in ensemble.members:
            source, seed = member_name(member)
            if not self.known(key, "experiment", source, trained):
                continue
            experiment = experiments[source]
            assert isinstance(experiment, Experiment)
            members.append(experiment)
            if "@" in member and seed not in experiment.seeds:
                self.problem(key, f"`{member}`: {source} has the seeds {experiment.seeds}.")
            for protocol in ensemble.protocols:
                if protocol not in experiment.protocols:
                    self.problem(
                        (*key[:-1], "protocols"),
                        f"`{protocol}`: the member {source} is evaluated with {', '.join(experiment.protocols)} only.",
                    )
        if len({experiment.dataset for experiment in members}) > 1:
            self.problem(key, "the members are evaluated on different data sets; an ensemble needs one.")
        if len(set(ensemble.members)) != len(ensemble.members):
            self.problem(key, "a member occurs twice.")

    def all(self) -> list[str]:
        configuration = self.configuration
        for name in configuration.datasets:
            self.dataset(name)
        for name, entry in configuration.experiments.items():
            if isinstance(entry, Ensemble):
                self.ensemble(name, entry)
            else:
                self.experiment(name, entry)
        for name, target in configuration.targets.items():
            if name in configuration.experiments:
                self.problem(("targets", name), "an experiment has the same name. Choose another one.")
            for experiment in target.experiments:
                self.known(("targets", name, "experiments"), "experiment", experiment, configuration.experiments)
            for experiment in (one for pair in target.compare for one in pair):
                self.known(("targets", name, "compare"), "experiment", experiment, target.experiments)
        for name in configuration.select:
            self.known(("select",), "experiment or target", name, [*configuration.experiments, *configuration.targets])
        for ring in _cycles(configuration):
            arrow = " → ".join([*ring, ring[0]])
            self.problem(("experiments", ring[0]), f"experiments start from each other in a ring: {arrow}.")
        return self.problems


def check_references(
    configuration: Configuration, sources: Sources, networks: Mapping[str, Collection[str]] | None = None
) -> None:
    """Check what pydantic cannot see: names across sections, changed recipes, ensembles, rings.

    Args:
        configuration: what pydantic found valid.
        sources: which file each value came from, for the messages.
        networks: the options that each network takes; None leaves ``model`` unchecked.

    Raises:
        UserError: one message with every problem found: file, key, value and the nearest valid name.
    """
    problems = _Checks(configuration, sources, networks).all()
    if problems:
        raise one_message(problems)

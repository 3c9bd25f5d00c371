"""What one section of the configuration says of another: names must exist, and no experiment may start from itself."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pipeline_lib.configuration.experiments import IMAGENET, IMPORTED, RANDOM, Ensemble, Experiment
from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.configuration.merging import Key, Sources
from pipeline_lib.configuration.messages import Checked, nearest, one_message, problem_of
from pipeline_lib.configuration.motions import METHODS
from pipeline_lib.configuration.networks import NetworkKind, NetworkOptions, Start
from pipeline_lib.configuration.networks import misfits as network_misfits
from pipeline_lib.configuration.objectives import Model
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.configuration.tables import PaperTable
from pipeline_lib.configuration.training import Recipe, merged, motion_problems

Problem = tuple[Key, str]
"""A key, and what is wrong with its value."""
Networks = Mapping[str, NetworkKind]


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
        names = [source for source in (experiment.teacher, experiment.start) if source is not None]
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


def _unknown(key: Key, kind: str, name: str, valid: Iterable[str]) -> Iterator[Problem]:
    names = list(valid)
    if name not in names:
        yield key, f"there is no {kind} `{name}`. {nearest(name, names)}"


def _validated(model: type[Checked], values: Any) -> tuple[Checked | None, list[Problem]]:
    """Plain data as a model, strict as the configuration itself, or what is wrong with them."""
    try:
        return model.model_validate_json(json.dumps(values), strict=True), []
    except ValidationError as error:
        return None, [problem_of(item, model, values) for item in error.errors(include_url=False)]  # type: ignore[arg-type]


class _ExperimentChecks:
    """Checks of one experiment; each method yields problems, whose keys lie below the experiment."""

    def __init__(self, experiment: Experiment, configuration: Configuration, networks: Networks | None) -> None:
        self.experiment, self.objective = experiment, experiment.objective
        self.configuration, self.networks = configuration, networks
        self.trained = {name: one for name, one in configuration.experiments.items() if isinstance(one, Experiment)}
        self.recipe, self.recipe_problems = self._recipe()

    def _recipe(self) -> tuple[Recipe | None, list[Problem]]:
        base = self.configuration.recipes.get(self.experiment.recipe)
        if base is None:
            return None, []
        return _validated(Recipe, merged(base.model_dump(mode="json"), self.experiment.recipe_changes))

    def _options(self, model: Model) -> tuple[NetworkOptions | None, list[Problem]]:
        kind = None if self.networks is None else self.networks.get(model.name)
        return (None, []) if kind is None else _validated(kind.options_model, kind.options | model.options)

    def names_exist(self) -> Iterator[Problem]:
        one, configuration = self.experiment, self.configuration
        yield from _unknown(("dataset",), "data set", one.dataset, configuration.datasets)
        yield from _unknown(("frame_format",), "frame format", one.frame_format, configuration.frame_formats)
        yield from _unknown(("recipe",), "recipe", one.recipe, configuration.recipes)
        for protocol in one.protocols:
            yield from _unknown(("protocols",), "protocol", protocol, configuration.protocols)
        if one.retrieval is not None:
            yield from _unknown(("retrieval",), "protocol", one.retrieval, configuration.protocols)
        if one.motion is not None:
            yield from _unknown(("motion",), "motion", one.motion, configuration.motions)
        if one.teacher is not None:
            yield from _unknown(("teacher",), "experiment", one.teacher, self.trained)
        for key, model in one.networks.items():
            if self.networks is not None:
                yield from _unknown((*key, "name"), "network", model.name, self.networks)

    def the_runs_are_possible(self) -> Iterator[Problem]:
        one = self.experiment
        for field in ("splits", "seeds", "protocols"):
            values = getattr(one, field)
            may_be_empty = field == "protocols" and self.objective.task is None
            if len(set(values)) != len(values) or not (values or may_be_empty):
                yield (field,), f"{values!r}: give at least one, and each only once."
        if any(seed < 0 for seed in one.seeds):
            yield ("seeds",), "a seed is not negative."
        if one.dataset in self.configuration.datasets:
            num_splits = self.configuration.datasets[one.dataset].num_splits
            for split in one.splits:
                if not 1 <= split <= num_splits:
                    yield ("splits",), f"there is no split {split}: {one.dataset} has {num_splits}, counted from 1."

    def the_recipe_is_valid(self) -> Iterator[Problem]:
        for key, text in self.recipe_problems:
            yield ("recipe_changes", *key), text

    def the_recipe_suits_the_objective(self) -> Iterator[Problem]:
        if self.recipe is not None:
            for name, text in self.objective.recipe_problems(self.recipe):
                yield ("recipe_changes", name), f"{text}."

    def the_augmentation_suits_motion(self) -> Iterator[Problem]:
        teacher = self.trained.get(self.experiment.teacher or "")
        if self.recipe is not None:
            beside = self.objective.reads_motion or (teacher is not None and teacher.modality == "flow")
            for name, text in motion_problems(self.recipe, self.experiment.modality, beside):
                yield ("recipe_changes", name), f"{text}."

    def the_networks_take_their_options(self) -> Iterator[Problem]:
        for key, model in self.experiment.networks.items():
            for below, text in self._options(model)[1]:
                yield (*key, "options", *below), f"{model.name}: {text}"

    def the_networks_take_the_clips(self) -> Iterator[Problem]:
        for key, model in self.experiment.networks.items():
            options, _ = self._options(model)
            if options is None or self.recipe is None:
                continue
            sampling = self.recipe.sampling
            length = self.objective.clip_lengths.get(key[-1], sampling.num_frames)
            if options.clip_frames not in (None, length):
                yield (
                    (*key, "options", "num_frames"),
                    f"{model.name} takes clips of {options.clip_frames} frames; these have {length}. Set it to that.",
                )
            if options.clip_side not in (None, sampling.crop):
                yield (
                    (*key, "options", "side"),
                    f"{model.name} takes clips of {options.clip_side} pixels a side; the recipe's `sampling.crop` is "
                    f"{sampling.crop}.",
                )

    def the_network_takes_the_clips_of_its_protocols(self) -> Iterator[Problem]:
        options, _ = self._options(self.experiment.model)
        if options is None or options.clip_frames is None:
            return
        for field, names in (("protocols", self.experiment.protocols), ("retrieval", [self.experiment.retrieval])):
            for name in names:
                protocol = self.configuration.protocols.get(name or "")
                if protocol is not None and (
                    protocol.num_clips == "all_frames" or protocol.num_frames not in (None, options.clip_frames)
                ):
                    yield (
                        (field,),
                        f"`{name}` has clips of another length than {options.clip_frames} frames, the only one that "
                        f"{self.experiment.model.name} takes.",
                    )
                crops = (None, options.clip_side)
                if protocol is not None and options.clip_side is not None and protocol.crop not in crops:
                    yield (
                        (field,),
                        f"`{name}` has clips of {protocol.crop} pixels a side; {self.experiment.model.name} takes "
                        f"{options.clip_side} only.",
                    )

    def the_objective_has_what_it_needs(self) -> Iterator[Problem]:
        one, objective = self.experiment, self.objective
        if one.modality not in objective.modalities:
            sees = " or ".join(objective.modalities)
            yield ("modality",), f"the network of the objective `{objective.name}` sees {sees}."
        if objective.task is None and one.protocols:
            yield ("protocols",), f"the objective `{objective.name}` trains no classifier to evaluate; write []."
        if objective.needs_teacher and one.teacher is None:
            yield ("teacher",), f"the objective `{objective.name}` needs a teacher: the name of an experiment."
        if one.teacher is not None and not objective.needs_teacher:
            yield ("teacher",), f"the objective `{objective.name}` uses no teacher; remove it."
        if one.motion is None and one.modality == "flow":
            yield ("motion",), "an experiment with `modality: flow` names the motion kind that it sees."
        elif one.motion is None and objective.reads_motion:
            yield ("motion",), f"the objective `{objective.name}` names the motion kind that it learns."

    def the_teacher_takes_the_clips_of_the_student(self) -> Iterator[Problem]:
        teacher = self.trained.get(self.experiment.teacher or "")
        options = None if teacher is None else self._options(teacher.model)[0]
        if options is None or self.recipe is None:
            return
        sampling = self.recipe.sampling
        if options.clip_frames not in (None, sampling.num_frames) or options.clip_side not in (None, sampling.crop):
            yield (
                ("teacher",),
                f"{self.experiment.teacher} sees the student's clips, {sampling.num_frames} frames of {sampling.crop} "
                "pixels a side, and its network takes clips of another size only.",
            )

    def flow_is_a_displacement(self) -> Iterator[Problem]:
        one, kind = self.experiment, self.configuration.motions.get(self.experiment.motion or "")
        if kind is not None and not METHODS[kind.method].is_flow:
            if one.modality == "flow" and one.modality in self.objective.modalities:
                yield ("motion",), f"`{one.motion}` ({kind.method}) is not flow, which `modality: flow` sees."
            elif self.objective.needs_flow:
                yield ("motion",), f"`{one.motion}` ({kind.method}) is not flow, which `{self.objective.name}` learns."

    def the_data_set_has_its_rate_and_its_flow(self) -> Iterator[Problem]:
        one, configuration = self.experiment, self.configuration
        dataset = configuration.datasets.get(one.dataset)
        rate = getattr(configuration.frame_formats.get(one.frame_format), "frames_per_second", None)
        if dataset is None:
            return
        format = FORMATS[dataset.format]
        own = dataset.frames_per_second or format.frames_per_second
        if format.folders_of_frames and rate is not None and own is None:
            yield (
                ("frame_format",),
                f"`{one.frame_format}` has {rate:g} frames a second; set datasets.{one.dataset}.frames_per_second, the "
                "rate of its images, or choose a frame format without a rate.",
            )
        teacher = self.trained.get(one.teacher or "")
        kind = configuration.motions.get(one.motion or (teacher.motion if teacher else None) or "")
        if kind is None or not METHODS[kind.method].reads_files:
            return
        if not format.folders_of_frames:
            yield (
                ("motion",),
                f"`{kind.method}` flow lies beside the frames of a data set of folders (format `rawframes`); "
                f"{one.dataset} has the format `{dataset.format}`.",
            )
        elif rate not in (None, own):
            yield (
                ("frame_format",),
                f"`{one.frame_format}` takes {rate:g} frames a second of {own or 0:g}; `{kind.method}` flow belongs to "
                "the images as they are. Choose a frame format without a rate.",
            )

    def the_teacher_sees_the_same_motion(self) -> Iterator[Problem]:
        one, teacher = self.experiment, self.trained.get(self.experiment.teacher or "")
        if teacher is not None and one.motion not in (None, teacher.motion):
            yield ("motion",), f"`{one.motion}` is not what the teacher {one.teacher} sees: `{teacher.motion}`."

    def the_start_exists(self) -> Iterator[Problem]:
        start, options = self.experiment.start, self._options(self.experiment.model)[0]
        if start == IMAGENET and options is not None and options.imagenet is None:
            yield ("start",), f"`{IMAGENET}`: there are no weights of that kind for {self.experiment.model.name}."
        elif "/" not in start:
            yield from _unknown(("start",), "experiment", start, [RANDOM, IMAGENET, *self.trained])
        elif not start.startswith(IMPORTED):
            yield (
                ("start",),
                f"`{start}` is neither an experiment nor `{IMPORTED}NAME` (weights made by `weights import`).",
            )

    def the_weights_of_the_start_fit(self) -> Iterator[Problem]:
        one, source = self.experiment, self.trained.get(self.experiment.start)
        own, start = (None if each is None else self._options(each.model)[0] for each in (one, source))
        if source is None or own is None or start is None:
            return
        found = network_misfits(
            Start(one.model.name, own, one.modality), Start(source.model.name, start, source.modality)
        )
        if found:
            yield (
                ("start",),
                f"the weights of `{one.start}` do not fit: {'; '.join(found)}. Only the number of classes may differ.",
            )

    OWN = (
        names_exist,
        the_runs_are_possible,
        the_recipe_is_valid,
        the_networks_take_their_options,
        the_objective_has_what_it_needs,
        the_teacher_sees_the_same_motion,
        the_start_exists,
    )
    """What is wrong with an experiment alone."""
    FITS = (
        the_recipe_suits_the_objective,
        the_augmentation_suits_motion,
        the_networks_take_the_clips,
        the_network_takes_the_clips_of_its_protocols,
        the_teacher_takes_the_clips_of_the_student,
        flow_is_a_displacement,
        the_data_set_has_its_rate_and_its_flow,
        the_weights_of_the_start_fit,
    )
    """What does not fit between an experiment and a recipe, a protocol or another experiment."""


def _ensemble_problems(ensemble: Ensemble, configuration: Configuration) -> Iterator[Problem]:
    trained = {name: one for name, one in configuration.experiments.items() if isinstance(one, Experiment)}
    datasets: set[str] = set()
    for member in ensemble.members:
        source, seed = member_name(member)
        yield from _unknown(("members",), "experiment", source, trained)
        if source not in trained:
            continue
        experiment = trained[source]
        datasets.add(experiment.dataset)
        if "@" in member and seed not in experiment.seeds:
            yield ("members",), f"`{member}`: {source} has the seeds {experiment.seeds}."
        for protocol in ensemble.protocols:
            if protocol not in experiment.protocols:
                yield (
                    ("protocols",),
                    f"`{protocol}`: the member {source} is evaluated with {', '.join(experiment.protocols)} only.",
                )
    if len(datasets) > 1:
        yield ("members",), "the members are evaluated on different data sets; an ensemble needs one."
    if len(set(ensemble.members)) != len(ensemble.members):
        yield ("members",), "a member occurs twice."


def _table_problems(name: str, table: PaperTable, configuration: Configuration) -> Iterator[Problem]:
    key = ("tables", name, "rows")
    for cell in table.cells:
        if cell.experiment is None:
            continue
        yield from _unknown(key, "experiment", cell.experiment, configuration.experiments)
        entry = configuration.experiments.get(cell.experiment)
        if entry is not None and cell.protocol is not None:
            yield from _unknown(key, f"protocol of {cell.experiment}", cell.protocol, entry.protocols)
    for experiment in (one for pair in table.compare for one in pair):
        yield from _unknown(("tables", name, "compare"), "experiment", experiment, table.experiments)


def _problems(configuration: Configuration, networks: Networks | None) -> Iterator[Problem]:
    for name, dataset in configuration.datasets.items():
        if dataset.is_generated != (dataset.generated is not None):
            yield (
                ("datasets", name, "generated"),
                "a data set has this section exactly when its format is `generated`.",
            )
        if dataset.frames_per_second is not None and not FORMATS[dataset.format].folders_of_frames:
            yield (
                ("datasets", name, "frames_per_second"),
                f"videos of the format `{dataset.format}` are files, which say their own rate; remove it.",
            )
    for name, kind in configuration.motions.items():
        for key, text in _validated(METHODS[kind.method].parameters, kind.parameters)[1]:
            yield ("motions", name, "parameters", *key), text
    for name, entry in configuration.experiments.items():
        if name in (RANDOM, IMAGENET):
            yield ("experiments", name), "the name means a start. Choose another one."
        if isinstance(entry, Ensemble):
            found = _ensemble_problems(entry, configuration)
        else:
            checks = _ExperimentChecks(entry, configuration, networks)
            found = (problem for check in checks.OWN for problem in check(checks))
        for key, text in found:
            yield ("experiments", name, *key), text
    for section, names in (("targets", configuration.targets), ("tables", configuration.tables)):
        for name in names:
            if name in configuration.experiments or (section == "tables" and name in configuration.targets):
                yield (section, name), "an experiment or a target has the same name. Choose another one."
    for name, table in configuration.tables.items():
        yield from _table_problems(name, table, configuration)
    for name, target in configuration.targets.items():
        if not (target.experiments or target.tables):
            yield ("targets", name), "give at least one of its experiments, or a table."
        for table_name in target.tables:
            yield from _unknown(("targets", name, "tables"), "table", table_name, configuration.tables)
        for experiment in target.experiments:
            yield from _unknown(("targets", name, "experiments"), "experiment", experiment, configuration.experiments)
        for experiment in (one for pair in target.compare for one in pair):
            yield from _unknown(("targets", name, "compare"), "experiment", experiment, target.experiments)
    for name in configuration.select:
        valid = [*configuration.experiments, *configuration.targets, *configuration.tables]
        yield from _unknown(("select",), "experiment, target or table", name, valid)
    for ring in _cycles(configuration):
        arrow = " → ".join([*ring, ring[0]])
        yield ("experiments", ring[0]), f"experiments start from each other in a ring: {arrow}."


def misfits(configuration: Configuration, networks: Networks | None, names: Iterable[str]) -> Iterator[Problem]:
    """What does not fit between some experiments and what they use; see ``_ExperimentChecks.FITS``."""
    for name in names:
        entry = configuration.experiments[name]
        if isinstance(entry, Experiment):
            checks = _ExperimentChecks(entry, configuration, networks)
            for key, text in (problem for check in checks.FITS for problem in check(checks)):
                yield ("experiments", name, *key), text


def refuse_misfits(configuration: Configuration, networks: Networks | None, names: Iterable[str]) -> None:
    """Refuse to run experiments that do not fit what they use.

    The experiments that the pipeline brings are checked only when they are asked for: a user who makes one network
    smaller need not do so with every experiment that starts from it.

    Raises:
        UserError: one message with every problem found: key, value and what would fit.
    """
    problems = [f"{'.'.join(key)}: {text}" for key, text in misfits(configuration, networks, names)]
    if problems:
        raise one_message(problems)


def check_references(configuration: Configuration, sources: Sources, networks: Networks | None = None) -> None:
    """Check what pydantic cannot see: names across sections, changed recipes, networks, starts, ensembles, rings.

    Args:
        configuration: what pydantic found valid.
        sources: which file each value came from, for the messages.
        networks: the catalogue by name; None leaves ``model`` unchecked.

    Raises:
        UserError: one message with every problem found: file, key, value and the nearest valid name.
    """
    given = sources.of_users("experiments")
    own = [name for name in configuration.experiments if name in given]
    found = [*_problems(configuration, networks), *misfits(configuration, networks, own)]
    problems = [f"{sources.origin(key)}: {'.'.join(key)}: {text}" for key, text in found]
    if problems:
        raise one_message(problems)

"""What an experiment of a paper differs in from the paper's, as the user has configured it.

The pipeline brings the papers' experiments (``workflow/``, config.yaml). A user may change any value of them, and then
a number of ours no longer stands for the paper's. So the experiment is compared, key by key, with the one that the
pipeline brings, and so is everything that it starts from, learns from or combines.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline_lib.configuration.experiments import IMAGENET, RANDOM, Experiment
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.planning.run import Run, with_sources

MOST_KEYS = 6
"""So many differing keys of one experiment are named; the others are counted."""

# Keys of a recipe that shape no weights, or only how often something is written.
_UNSHAPING = (
    *("source", "log_steps", "checkpoint_steps", "checkpoint_minutes", "keep_checkpoints"),
    *("validation_steps", "validation_videos", "maximum_skipped_steps"),
)
# Keys of a data set that say where it lies and how it is checked, not which videos it has.
_PLACES = (
    *(
        "annotations",
        "videos",
        "replacements",
        "num_shards",
        "group_pattern",
        "probe",
        "on_decode_error",
        "probe_seconds",
    ),
    *("maximum_reject_share", "minimum_frames", "minimum_short_side"),
)
_START = "start"


def as_published(configuration: Configuration) -> Configuration:
    """The configuration without a trial and with the papers' starts."""
    return configuration.model_copy(update={"trial": 1.0, "start": IMAGENET})


def _flat(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping) and values:
        for name, value in values.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values


def settings(run: Run) -> dict[str, Any]:
    """Everything that decides what a training or its evaluation gives, by key."""
    configuration = run.configuration
    found: dict[str, Any] = {
        f"protocols.{name}": configuration.protocols[name].model_dump(mode="json") for name in run.entry.protocols
    }
    if not isinstance(run.entry, Experiment):
        return dict(_flat(found | {"members": list(run.entry.members)}))
    one, training = run.trained, run.training
    recipe = training.recipe.model_dump(mode="json", exclude=set(_UNSHAPING))
    found |= {
        "dataset": one.dataset,
        "datasets": {one.dataset: configuration.datasets[one.dataset].model_dump(mode="json", exclude=set(_PLACES))},
        "frame_format": configuration.frame_formats[one.frame_format].model_dump(mode="json"),
        "motion": None if training.motion_kind is None else training.motion_kind.model_dump(mode="json"),
        "modality": one.modality,
        "model": training.model.model_dump(mode="json"),
        "objective": training.objective.model_dump(mode="json"),
        "recipe": recipe,
        "train_share": one.train_share,
        "teacher": one.teacher,
    }
    # The run that it starts from is compared on its own.
    found[_START] = one.start if run.start is not None else run.first_weights
    return dict(_flat(found))


def _text(key: str, ours: Any, published: Any) -> str:
    if key == _START and ours == RANDOM:
        return "random first weights, the paper starts from ImageNet's"
    if key == _START:
        return f"starts from {ours}"
    return f"{key.removeprefix('recipe.')} {_short(ours)} instead of {_short(published)}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def own_differences(run: Run, published: Configuration) -> list[str]:
    """What one run differs in, apart from what it starts from, learns from or combines."""
    ours = settings(Run(run.experiment, run.split, run.seed, run.configuration.model_copy(update={"trial": 1.0})))
    if run.experiment not in published.experiments:
        return []
    theirs = settings(Run(run.experiment, run.split, run.seed, published))
    differing = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key)]
    if isinstance(run.entry, Experiment) and run.imagenet is None:
        # What the paper's first weights need of a network differs only with them.
        start = Run(run.experiment, run.split, run.seed, published).imagenet
        needed = () if start is None else tuple(f"model.options.{name}" for name in start.options)
        differing = [key for key in differing if key not in needed]
    texts = [_text(key, ours.get(key), theirs.get(key)) for key in differing]
    if len(texts) > MOST_KEYS:
        texts = [*texts[:MOST_KEYS], f"{len(texts) - MOST_KEYS} more keys"]
    return texts


def differences(run: Run, published: Configuration) -> list[str]:
    """What a run differs in from the paper's experiment, inherited differences included.

    Args:
        run: of an experiment or an ensemble.
        published: the configuration that the pipeline brings, as ``as_published`` gives it.

    Returns:
        Sentences without an end, such as ``sampling.crop 56 instead of 224`` or ``global_batch 6 instead of 384 (in
        teacher_k400)``; empty if nothing differs, or if the pipeline brings no such experiment.
    """
    if run.experiment not in published.experiments:
        return []
    trial = run.configuration.trial
    places: dict[str, list[str]] = {}
    for one in with_sources([run]):
        for text in own_differences(one, published):
            places.setdefault(text, []).append(one.experiment)
    found = [] if trial == 1.0 else [f"a trial of {trial:g} of the recipe's steps and batch"]
    for text, names in places.items():
        found.append(text if run.experiment in names else f"{text} (in {', '.join(dict.fromkeys(names))})")
    return found

"""Does motion distillation help without labels? MoDist, RGB-only and random features over seeds and folds.

The figure is the mean paired difference of the linear protocol's video top-1, MoDist − RGB-only, on the generated set,
in percentage points; the reference is RGB-only's accuracy, the ratio MoDist over RGB-only. Beside it the same for k-NN
and retrieval, random features, and (group-wise folds) real surveillance clips. Everything runs through the
pipeline's own stages, and what is finished is not done again: a run that was stopped (``--minutes``) goes on with the
same command.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from common import emit, machine, say
from distillation import (
    CORES,
    HARDWARE,
    PROTOCOL,
    PROTOCOL_NAME,
    REPOSITORY,
    Clock,
    OutOfTimeError,
    Trial,
    generated_trial,
    is_current,
    prepare,
    recipe,
    surveillance_trial,
)

import numpy as np  # isort: skip
from scipy import stats  # isort: skip

from pipeline_lib.artefacts.atomic import write_json  # isort: skip
from pipeline_lib.artefacts.layout import Layout, shard_names  # isort: skip
from pipeline_lib.configuration.data import Motion  # isort: skip
from pipeline_lib.configuration.experiments import Experiment  # isort: skip
from pipeline_lib.configuration.objectives import Classification, Model, MotionDistillation  # isort: skip
from pipeline_lib.configuration.specification import EvaluationSpecification, TrainingSpecification  # isort: skip
from pipeline_lib.configuration.training import Recipe  # isort: skip
from pipeline_lib.evaluation.results import read_metrics  # isort: skip
from pipeline_lib.evaluation.retrieval import retrieve  # isort: skip
from pipeline_lib.evaluation.runner import evaluate  # isort: skip
from pipeline_lib.flow.strength_stage import measure_strength  # isort: skip
from pipeline_lib.models.catalogue import resolve  # isort: skip
from pipeline_lib.training.run import train  # isort: skip

KINDS = ("modist", "rgb_only", "random")
FIGURES = ("linear", "knn", "recall_at_1", "recall_at_5", "recall_at_10")


@dataclass(frozen=True)
class Comparison:
    """One data set, and how features are learnt and judged on it."""

    trial: Trial
    pretraining: Recipe
    linear: Recipe
    objectives: dict[str, MotionDistillation]
    """Of ``modist`` and ``rgb_only``."""


def experiment(name: str) -> Experiment:
    """An experiment of the workflow."""
    values = yaml.safe_load((REPOSITORY / "workflow/experiments/modist.yaml").read_text())
    return Experiment.model_validate(values[name])


def comparison(trial: Trial, steps: int | None, linear_steps: int | None) -> Comparison:
    """The demo's networks, objectives and recipes on a data set; its clips are those of the demo's recipe."""
    configuration = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    demo = experiment("modist_demo")
    assert demo.motion is not None and isinstance(demo.objective, MotionDistillation)
    options = resolve(demo.model.name)[1] | demo.model.options
    pathway = demo.objective.motion_network
    pathway = Model(name=pathway.name, options=resolve(pathway.name)[1] | pathway.options)
    changed = replace(
        trial,
        motion_name=demo.motion,
        motion=Motion.model_validate(configuration["motions"][demo.motion]),
        model=Model(name=demo.model.name, options=options),
    )
    rgb_only = experiment("rgb_only_demo").objective
    assert isinstance(rgb_only, MotionDistillation)
    return Comparison(
        changed,
        shortened(recipe(demo.recipe), steps),
        shortened(recipe(experiment("modist_demo_linear").recipe), linear_steps),
        {"modist": demo.objective.model_copy(update={"motion_network": pathway}), "rgb_only": rgb_only},
    )


def shortened(whole: Recipe, steps: int | None) -> Recipe:
    """A recipe of another length; its warm-up shrinks along."""
    if steps is None:
        return whole
    warmup = whole.schedule.warmup_steps * steps // whole.steps
    return whole.model_copy(
        update={"steps": steps, "schedule": whole.schedule.model_copy(update={"warmup_steps": warmup})}
    )


def on_surveillance(made: Comparison) -> Comparison:
    """The same on larger pixels, at 12.5 frames a second: every second of 15 frames, 1.2 seconds."""

    def sized(whole: Recipe, short_side: tuple[int, int]) -> Recipe:
        sampling = whole.sampling.model_copy(update={"crop": 88, "short_side": short_side})
        return whole.model_copy(update={"sampling": sampling})

    return replace(made, pretraining=sized(made.pretraining, (96, 108)), linear=sized(made.linear, (96, 96)))


def specifications(made: Comparison, split: int, seed: int) -> Iterator[tuple[str, TrainingSpecification]]:
    """The trainings of one pair (split, seed), each behind what it starts from."""
    trial = made.trial

    def one(name: str, stage: str, **more: Any) -> TrainingSpecification:
        return TrainingSpecification(
            experiment=f"{trial.name}_{name}",
            stage=stage,
            split=split,
            seed=seed,
            dataset=trial.name,
            horizontal_flip=trial.dataset.horizontal_flip,
            num_shards=trial.dataset.num_shards,
            frame_format=trial.frame_format_name,
            modality="rgb",
            model=trial.model,
            teacher=None,
            hardware=HARDWARE,
            **more,
        )

    for kind in KINDS:
        start = None
        if kind in made.objectives:
            objective = made.objectives[kind]
            motion = (trial.motion_name, trial.motion) if objective.reads_motion else (None, None)
            yield (
                f"{kind}_pretraining",
                one(
                    kind,
                    "pretrain",
                    motion=motion[0],
                    motion_kind=motion[1],
                    recipe=made.pretraining,
                    objective=objective,
                    start="random",
                ),
            )
            start = f"{trial.name}_{kind}/{split}-{seed}"
        frozen = Classification(frozen=True, standardised=True)
        linear = {"recipe": made.linear, "objective": frozen, "motion": None, "motion_kind": None}
        yield kind, one(f"{kind}_linear", "finetune", start=start, **linear)


def measure(made: Comparison, root: Path, clock: Clock) -> Iterator[dict[str, Any]]:
    """Yield one record per (split, seed): each kind's figures in per cent."""
    trial, layout = made.trial, Layout(root)
    prepare(trial, root, clock)
    for shard in shard_names(trial.dataset.num_shards):
        place = (trial.name, trial.frame_format_name, trial.motion_name, shard)
        if not layout.strength(*place).exists():
            measure_strength(layout.motion(*place), layout.strength(*place))
    for split, seed in trial.runs:
        record: dict[str, Any] = {"split": split, "seed": seed}
        for name, specification in specifications(made, split, seed):
            clock()
            run = (specification.experiment, str(split), str(seed))
            # No loader processes: a fork of a process whose flow threads ran may hang.
            train(specification, root, layout.experiment(*run), num_workers=0)
            if name not in KINDS:
                continue
            wanted = EvaluationSpecification(training=specification, protocol_name=PROTOCOL_NAME, protocol=PROTOCOL)
            folder = layout.evaluation(*run, PROTOCOL_NAME)
            if not is_current(folder / "metrics.json", layout.weights(*run)):
                evaluate(wanted, root, folder, CORES)
            if not is_current(folder / "retrieval.json", layout.weights(*run)):
                retrieve(wanted, root, folder / "retrieval.json", CORES)
            near = read_metrics(folder / "retrieval.json", "recall_at_1")["metrics"]
            linear = read_metrics(folder / "metrics.json")["metrics"]["video_top1"]
            figures = {"linear": linear, "knn": near["knn_top1"]}
            figures |= {figure: near[figure] for figure in FIGURES if figure in near}
            record[name] = {figure: round(100 * value, 2) for figure, value in figures.items()}
        say(f"{trial.name}: {json.dumps(record)}")
        yield record


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of every kind, and the paired differences to MoDist with their 95 % t intervals."""
    summary: dict[str, Any] = {"num_runs": len(records), "runs": list(records)}
    for kind in KINDS:
        summary[kind] = {f: round(float(np.mean([r[kind][f] for r in records])), 2) for f in FIGURES}
    for other in KINDS[1:]:
        for figure in ("linear", "knn"):
            values = np.array([record["modist"][figure] - record[other][figure] for record in records])
            interval = None
            if len(values) > 1:
                half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
                interval = [round(float(values.mean()) - half, 2), round(float(values.mean()) + half, 2)]
            difference = {"mean": round(float(values.mean()), 2), "interval_95": interval}
            summary[f"modist_minus_{other}_{figure}"] = difference
    return summary


def main() -> int:
    """Measure, keep the results, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds on the generated set")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--validation", type=int, default=400, help="validation videos of the generated set")
    parser.add_argument("--sets", nargs="+", default=["generated", "surveillance"], help="which of the two to run")
    parser.add_argument("--steps", type=int, help="of a pre-training there (default: the demo's recipe)")
    parser.add_argument("--linear-steps", type=int, help="of a linear classifier (default: the demo's recipe)")
    parser.add_argument("--surveillance-steps", type=int, default=240, help="steps of a pre-training there")
    parser.add_argument("--folds", type=int, default=4, help="how many of the four folds there")
    parser.add_argument("--media", type=Path, default=None, help="real media (default: $PIPELINE_MEDIA)")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "output/benchmarks/modist")
    parser.add_argument("--minutes", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--trial", action="store_true", help="a size that is done in minutes and proves nothing")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/modist.json")
    options = parser.parse_args()
    media = options.media or Path(os.environ.get("PIPELINE_MEDIA", REPOSITORY.parent / "shared/media"))
    root = options.work / ("trial" if options.trial else "full")
    short = (20, 20) if options.trial else (options.steps, options.linear_steps)
    made = []
    if "generated" in options.sets:
        sizes = (2, 24, 48) if options.trial else (options.seeds, options.validation, None)
        trial = generated_trial(*sizes, dataset_name=experiment("modist_demo").dataset)
        runs = tuple((split, options.first_seed + seed) for split, seed in trial.runs)
        made.append(comparison(replace(trial, runs=runs), *short))
    if "surveillance" in options.sets:
        clips = media / "surveillance_fights"
        if clips.is_dir():
            steps = 20 if options.trial else options.surveillance_steps
            trial = surveillance_trial(clips, root, steps)
            trial = replace(trial, runs=trial.runs[: options.folds])
            made.append(on_surveillance(comparison(trial, steps, short[1])))
        else:
            say(f"no surveillance clips at {clips}: that half is left out")
    clock, complete, results = Clock(options.minutes), True, {}
    for one in made:
        records: list[dict[str, Any]] = []
        try:
            for record in measure(one, root, clock):
                records.append(record)  # noqa: PERF402 (the clock may end the loop; what is done is kept)
        except OutOfTimeError:
            say(f"{one.trial.name}: out of time after {len(records)} of {len(one.trial.runs)} runs; run it again")
            complete = False
        if records:
            exclude = {"videos", "annotations"}
            results[one.trial.name] = summarise(records) | {
                "pretraining": one.pretraining.model_dump(mode="json"),
                "linear": one.linear.model_dump(mode="json"),
                "objective": one.objectives["modist"].model_dump(mode="json"),
                "dataset": one.trial.dataset.model_dump(mode="json", exclude_defaults=True, exclude=exclude),
            }
    if not results:
        return 1
    if options.keep:
        kept = REPOSITORY / "benchmarks/results/modist.json"
        write_json(kept, {"machine": machine(), "complete": complete, "results": results})
    first = next(iter(results.values()))
    reference = first["rgb_only"]["linear"]
    emit(
        "modist_linear_gain",
        first["modist_minus_rgb_only_linear"]["mean"],
        "percentage points of video top-1 in the linear protocol, MoDist − RGB-only",
        reference,
        ratio=first["modist"]["linear"] / reference if reference else None,
        conditions={"complete": complete, "results": results},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

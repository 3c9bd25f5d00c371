"""Does distillation gain? Baseline, teacher, D3D and RGB + flow over seeds on generated videos and folds of real ones.

D3D learns from the teacher's logits, or from its features at Mixed_4f. The figure is the mean paired difference of the
latter to the baseline on the generated set, in percentage points of video top-1; the reference is the baseline's
accuracy, the ratio that of the two. ``--variants all`` trains D3D's Table 6 besides and
says which of its orderings hold; the figure then is how many of them do. Everything runs through the pipeline's own
stages, and what is finished is not done again: a run that was stopped (``--minutes``) goes on with the same command.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from common import emit, machine, say

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

from pipeline_lib.artefacts.atomic import write_bytes, write_json  # noqa: E402
from pipeline_lib.artefacts.layout import Layout, shard_names  # noqa: E402
from pipeline_lib.configuration.data import Dataset, FrameFormat, Motion  # noqa: E402
from pipeline_lib.configuration.experiments import Protocol  # noqa: E402
from pipeline_lib.configuration.objectives import Classification, Distillation, FlowRegression, Model  # noqa: E402
from pipeline_lib.configuration.root import Hardware  # noqa: E402
from pipeline_lib.configuration.specification import (  # noqa: E402
    EnsembleSpecification,
    EvaluationSpecification,
    FramesSpecification,
    ManifestSpecification,
    MotionSpecification,
    TrainingSpecification,
)
from pipeline_lib.configuration.training import Recipe  # noqa: E402
from pipeline_lib.evaluation.ensemble import evaluate_ensemble  # noqa: E402
from pipeline_lib.evaluation.results import read_metrics  # noqa: E402
from pipeline_lib.evaluation.runner import evaluate  # noqa: E402
from pipeline_lib.flow.motion_stage import extract_motion  # noqa: E402
from pipeline_lib.generation.stage import generate  # noqa: E402
from pipeline_lib.manifests.build import build_manifest  # noqa: E402
from pipeline_lib.media.frames_stage import extract_frames  # noqa: E402
from pipeline_lib.training.run import train  # noqa: E402

FOLDS = 4
HARDWARE = Hardware(device="auto", num_threads=1)
CORES = os.cpu_count() or 1
PROTOCOL_NAME, PROTOCOL = "two_clips", Protocol(num_clips=2)


MIXED_4F = Distillation(endpoint="Mixed_4f", weight=100.0)
"""D3D's λ at this endpoint (Table 6); what the demo does."""
VARIANTS: dict[str, tuple[str, Any]] = {
    "flow_loss": ("pretrain", FlowRegression(endpoint="MaxPool_3a_3x3", decoder="pwc", unit="bound")),
    "conv2c": ("distill", Distillation(endpoint="Conv2d_2c_3x3", weight=1.0)),
    "mixed4c": ("distill", Distillation(endpoint="Mixed_4c", weight=1.0)),
    "without_action": ("distill", Distillation(action_weight=0.0)),
    "from_spatial": ("distill", Distillation()),
    # First the layers that predict flow, under the trained temporal stream; then both, end to end.
    "flow_predictor": (
        "pretrain",
        FlowRegression(endpoint="predicted_flow", decoder="none", action_weight=0.0, unit="bound"),
    ),
    "predicted_flow": ("finetune", Classification()),
}
"""Table 6's rows besides baseline, teacher, D3D and its best feature: stage and objective."""
STUDENTS = ("d3d", "mixed4f")
"""Distilled at the logits, and at Mixed_4f."""
TABLE_6 = {
    "baseline": 74.0,
    "teacher": 67.3,
    "predicted_flow": 69.7,
    "flow_loss": 74.3,
    "conv2c": 74.4,
    "mixed4c": 74.5,
    "mixed4f": 74.8,
    "without_action": 58.8,
    "from_spatial": 74.3,
    "d3d": 75.9,
}
"""D3D (Stroud et al. 2020), Table 6: top-1 on Kinetics-400, per cent."""
SMALLEST = 1.0
"""Percentage points by which two rows of the paper must differ to count as ordered."""


class OutOfTimeError(Exception):
    """The minutes given to this run are over; the same command goes on."""


@dataclass(frozen=True)
class Trial:
    """One data set of the comparison, and how networks are trained on it."""

    name: str
    dataset: Dataset
    frame_format_name: str
    frame_format: FrameFormat
    motion_name: str
    motion: Motion
    model: Model
    rgb_recipe: Recipe
    flow_recipe: Recipe
    distillation: Distillation
    runs: tuple[tuple[int, int], ...]
    """(split, seed) pairs; each gives one paired difference."""


def recipe(name: str) -> Recipe:
    """A recipe of the workflow."""
    return Recipe.model_validate(yaml.safe_load((REPOSITORY / f"workflow/recipes/{name}.yaml").read_text()))


def generated_trial(
    num_seeds: int, num_validation: int, num_train: int | None = None, dataset_name: str | None = None
) -> Trial:
    """A generated set of the configuration (the demo's unless named), with a larger validation list."""
    configuration = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    experiment = yaml.safe_load((REPOSITORY / "workflow/experiments/demo.yaml").read_text())["teacher_demo"]
    dataset = Dataset.model_validate(configuration["datasets"][dataset_name or experiment["dataset"]])
    assert dataset.generated is not None
    sizes = {"num_validation": num_validation, "num_train": num_train or dataset.generated.num_train}
    larger = dataset.generated.model_copy(update=sizes)
    return Trial(
        name="generated",
        dataset=dataset.model_copy(update={"generated": larger}),
        frame_format_name=experiment["frame_format"],
        frame_format=FrameFormat.model_validate(configuration["frame_formats"][experiment["frame_format"]]),
        motion_name=experiment["motion"],
        motion=Motion.model_validate(configuration["motions"][experiment["motion"]]),
        model=Model.model_validate(experiment["model"]),
        rgb_recipe=recipe("demo_rgb"),
        flow_recipe=recipe("demo_flow"),
        # This teacher is so sure of itself that λ = 1 would weigh its logits five times as much as the labels.
        distillation=Distillation(endpoint="logits", weight=0.1),
        runs=tuple((1, seed) for seed in range(num_seeds)),
    )


def write_folds(media: Path, table: Path, num_folds: int) -> None:
    """Write the surveillance clips' table with group-wise folds as splits 1 … ``num_folds``.

    Sources (groups) go, largest first, to the fold in which they leave both classes closest to equal shares; every
    clip of a source is in the same fold, since clips of one source look alike.
    """
    rows = [line.split(",") for line in (media / "manifest.csv").read_text().splitlines()[1:]]
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for _, label, group in rows:
        counts[group][label] += 1
    labels = sorted({label for _, label, _ in rows})
    held = [dict.fromkeys(labels, 0) for _ in range(num_folds)]
    fold_of = {}
    for group in sorted(counts, key=lambda name: (-sum(counts[name].values()), name)):

        def cost(fold: int, group: str = group) -> float:
            return sum(
                (held[other][label] + (counts[group][label] if other == fold else 0)) ** 2
                for other in range(num_folds)
                for label in labels
            )

        fold_of[group] = min(range(num_folds), key=cost)
        for label in labels:
            held[fold_of[group]][label] += counts[group][label]
    lines = [",".join(["path", "label", "group", *(f"subset_{fold + 1}" for fold in range(num_folds))])]
    for path, label, group in rows:
        subsets = ["validation" if fold_of[group] == fold else "train" for fold in range(num_folds)]
        lines.append(",".join([path, label, group, *subsets]))
    write_bytes(table, ("\n".join(lines) + "\n").encode())


def surveillance_trial(media: Path, root: Path, steps: int) -> Trial:
    """Real surveillance clips, group-wise folds, the prototypes' small networks."""
    table = root / "surveillance_folds.csv"
    write_folds(media, table, FOLDS)
    demo = recipe("demo_rgb")
    short = demo.model_copy(
        update={
            "steps": steps,
            "source": "The demo's, on 16 frames of 88 pixels.",
            "schedule": demo.schedule.model_copy(update={"milestones": [round(0.7 * steps), round(0.9 * steps)]}),
            "sampling": demo.sampling.model_copy(update={"num_frames": 16, "crop": 88, "short_side": (96, 96)}),
        }
    )
    return Trial(
        name="surveillance",
        dataset=Dataset(
            format="table",
            annotations={"all": str(table)},
            videos=[str(media)],
            num_splits=FOLDS,
            num_shards=4,
        ),
        frame_format_name="short96_12fps",
        frame_format=FrameFormat(short_side=96, frames_per_second=12.5, jpeg_quality=85),
        motion_name="tvl1",
        motion=Motion(method="tvl1", bound=20.0),
        model=Model(name="s3dg_slim", options={"depth_multiplier": 0.25}),
        rgb_recipe=short,
        flow_recipe=short,
        distillation=Distillation(endpoint="logits", weight=1.0),
        runs=tuple((split, 0) for split in range(1, FOLDS + 1)),
    )


def finetuning(whole: Recipe) -> Recipe:
    """A recipe at a tenth of its rate: the whole rate throws away what both parts of a pre-trained network know."""
    rate = whole.schedule.base_rate / 10
    return whole.model_copy(update={"schedule": whole.schedule.model_copy(update={"base_rate": rate})})


def prepare(trial: Trial, root: Path, check: "Clock") -> None:
    """Videos, manifest, frames and motion of a trial; stages whose artefact lies there are skipped."""
    layout, name = Layout(root), trial.name
    specification = ManifestSpecification(name=name, dataset=trial.dataset)
    if trial.dataset.generated is not None and not (layout.root / "media" / name / "generated.json").exists():
        generate(name, trial.dataset.generated, layout.root / "media" / name, CORES)
    if not layout.summary(name).exists():
        build_manifest(specification, layout.manifest_folder(name), CORES)
    for shard in shard_names(trial.dataset.num_shards):
        check()
        frames = layout.frames(name, trial.frame_format_name, shard)
        if not frames.exists():
            extract_frames(
                FramesSpecification(
                    dataset=name,
                    frame_format=trial.frame_format_name,
                    frames=trial.frame_format,
                    on_decode_error=trial.dataset.on_decode_error,
                ),
                layout.shard_list(name, shard),
                frames,
                CORES,
            )
        motion = layout.motion(name, trial.frame_format_name, trial.motion_name, shard)
        if not motion.exists():
            extract_motion(
                MotionSpecification(
                    dataset=name,
                    frame_format=trial.frame_format_name,
                    motion=trial.motion_name,
                    motion_kind=trial.motion,
                    device=HARDWARE.device,
                ),
                frames,
                motion,
                CORES,
            )


def specifications(trial: Trial, split: int, seed: int, variants: bool) -> dict[str, TrainingSpecification]:
    """The trainings of one pair (split, seed); every student's recipe is the baseline's."""

    def one(kind: str, stage: str, modality: str, **more: Any) -> TrainingSpecification:
        return TrainingSpecification(
            experiment=f"{trial.name}_{kind}",
            stage=stage,
            split=split,
            seed=seed,
            dataset=trial.name,
            horizontal_flip=trial.dataset.horizontal_flip,
            num_shards=trial.dataset.num_shards,
            frame_format=trial.frame_format_name,
            modality=modality,
            motion=trial.motion_name if stage not in ("train_baseline", "finetune") else None,
            motion_kind=trial.motion if stage not in ("train_baseline", "finetune") else None,
            model=more.get("model", trial.model),
            recipe=more.get("recipe", trial.flow_recipe if modality == "flow" else trial.rgb_recipe),
            objective=more.get("objective", Classification()),
            teacher=more.get("teacher"),
            start=more.get("start", "random"),
            hardware=HARDWARE,
        )

    teacher = one("teacher", "train_teacher", "flow")
    found = {
        "teacher": teacher,
        "baseline": one("baseline", "train_baseline", "rgb"),
        "d3d": one("d3d", "distill", "rgb", objective=trial.distillation, teacher=teacher),
    }
    found["mixed4f"] = one("mixed4f", "distill", "rgb", objective=MIXED_4F, teacher=teacher)
    starts = {"flow_predictor": "teacher", "predicted_flow": "flow_predictor"}
    for kind, (stage, objective) in VARIANTS.items() if variants else ():
        more: dict[str, Any] = {"objective": objective}
        if stage == "distill":
            more["teacher"] = found["baseline"] if kind == "from_spatial" else teacher
        if kind in starts:
            options = {"depth_multiplier": trial.model.options["depth_multiplier"]}
            more["model"] = Model(name="s3dg_predicted_flow", options=options)
            more["start"] = f"{trial.name}_{starts[kind]}/{split}-{seed}"
        if stage == "finetune":
            more["recipe"] = finetuning(trial.rgb_recipe)
        found[kind] = one(kind, stage, "rgb", **more)
    return found


class Clock:
    """Stops the run between two pieces of work when its minutes are over."""

    def __init__(self, minutes: float | None) -> None:
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.end is not None and time.monotonic() > self.end

    def __call__(self) -> None:
        """Raise OutOfTimeError when the time is over."""
        if self.is_over():
            raise OutOfTimeError


def is_current(figures: Path, weights: Path) -> bool:
    """Whether figures are of these weights: a training with other settings writes newer ones under the same name."""
    return figures.exists() and weights.exists() and figures.stat().st_mtime_ns >= weights.stat().st_mtime_ns


def measure(trial: Trial, root: Path, clock: Clock, variants: bool) -> Iterator[dict[str, Any]]:
    """Yield one record per (split, seed): accuracies in per cent on validation, and the networks' on training clips."""
    layout = Layout(root)
    prepare(trial, root, clock)
    for split, seed in trial.runs:
        record: dict[str, Any] = {"split": split, "seed": seed}
        stopped = False
        for kind, specification in specifications(trial, split, seed, variants).items():
            run = (specification.experiment, str(split), str(seed))
            # What is finished is read whatever the time.
            finished = (layout.evaluation(*run, f"{PROTOCOL_NAME}_train") / "metrics.json").exists()
            stopped = clock.is_over() and not finished
            if stopped and "mixed4f" not in record:
                raise OutOfTimeError
            if stopped:
                break
            # No loader processes: a fork of a process whose flow threads ran may hang.
            train(specification, root, layout.experiment(*run), num_workers=0)
            for subset, protocol_name in (("validation", PROTOCOL_NAME), ("train", f"{PROTOCOL_NAME}_train")):
                protocol = PROTOCOL.model_copy(update={"subset": subset})
                folder = layout.evaluation(*run, protocol_name)
                if not is_current(folder / "metrics.json", layout.weights(*run)):
                    evaluate(
                        EvaluationSpecification(training=specification, protocol_name=protocol_name, protocol=protocol),
                        root,
                        folder,
                        HARDWARE.num_threads,
                    )
                accuracy = round(100 * read_metrics(folder / "metrics.json")["metrics"]["video_top1"], 2)
                record[kind if subset == "validation" else f"{kind}_on_train"] = accuracy
        both = EnsembleSpecification(
            experiment=f"{trial.name}_rgb_flow",
            split=split,
            seed=seed,
            members=[f"{trial.name}_{kind}/{split}-{seed}" for kind in ("baseline", "teacher")],
            protocol_name=PROTOCOL_NAME,
            protocol=PROTOCOL,
        )
        folder = layout.evaluation(both.experiment, str(split), str(seed), PROTOCOL_NAME)
        metrics = evaluate_ensemble(both, root, folder)["metrics"]
        record["rgb_flow"] = round(100 * metrics["video_top1"], 2)
        say(f"{trial.name}: {json.dumps(record)}")
        yield record
        if stopped:
            raise OutOfTimeError


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of every network, and the paired differences with their 95 % t intervals."""
    summary: dict[str, Any] = {"num_runs": len(records), "runs": list(records)}
    networks = ("baseline", "teacher", *STUDENTS)
    for kind in (*networks, "rgb_flow", *(f"{network}_on_train" for network in networks)):
        values = np.array([record[kind] for record in records])
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        summary[kind] = {"mean": round(float(values.mean()), 2), "standard_deviation": spread and round(spread, 2)}
    pairs = [*((student, "baseline") for student in STUDENTS), ("mixed4f", "teacher"), ("mixed4f", "d3d")]
    for first, second in pairs:
        differences = np.array([record[first] - record[second] for record in records])
        mean = float(differences.mean())
        interval = None
        if len(differences) > 1:
            half = float(stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences)))
            interval = [round(mean - half, 2), round(mean + half, 2)]
        summary[f"{first}_minus_{second}"] = {"mean": round(mean, 2), "interval_95": interval}
    return summary


def orderings(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every pair of Table 6's rows that the paper tells apart, and whether ours differ the same way.

    Rows that a run out of time has not come to are left out.
    """
    rows = [kind for kind in TABLE_6 if all(kind in record for record in records)]
    ours = {kind: float(np.mean([record[kind] for record in records])) for kind in rows}
    found = []
    for higher in rows:
        for lower in rows:
            above, below = TABLE_6[higher], TABLE_6[lower]
            if above - below >= SMALLEST:
                difference = round(ours[higher] - ours[lower], 2)
                pair = {"higher": higher, "lower": lower, "paper": round(above - below, 1), "ours": difference}
                found.append({**pair, "holds": difference > 0})
    return found


def main() -> int:
    """Measure, keep the results, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="seeds on the generated set")
    parser.add_argument("--sets", nargs="+", default=["generated", "surveillance"], help="which of the two to run")
    parser.add_argument("--media", type=Path, default=None, help="real media (default: $PIPELINE_MEDIA)")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "output/benchmarks/distillation")
    parser.add_argument("--minutes", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--trial", action="store_true", help="a size that is done in minutes and proves nothing")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/distillation.json")
    parser.add_argument("--variants", choices=("all",), help="train Table 6's variants too (results: table6.json)")
    parser.add_argument("--runs", type=int, help="at most so many seeds or folds")
    parser.add_argument("--steps", type=int, help="steps of a training on the surveillance clips (default: 240)")
    options = parser.parse_args()
    media = options.media or Path(os.environ.get("PIPELINE_MEDIA", REPOSITORY.parent / "shared/media"))
    root = options.work / ("trial" if options.trial else "full")
    trials = []
    if "generated" in options.sets:
        trials.append(generated_trial(2, 24, 48) if options.trial else generated_trial(options.seeds, 400))
    if "surveillance" in options.sets:
        clips = media / "surveillance_fights"
        if clips.is_dir():
            trials.append(surveillance_trial(clips, root, options.steps or (20 if options.trial else 240)))
        else:
            say(f"no surveillance clips at {clips}: that half is left out")
    if options.trial:
        trials = [
            replace(
                trial,
                rgb_recipe=trial.rgb_recipe.model_copy(update={"steps": 20, "reestimate_batch_norm": 4}),
                flow_recipe=trial.flow_recipe.model_copy(update={"steps": 20, "reestimate_batch_norm": 4}),
                runs=trial.runs[:2],
            )
            for trial in trials
        ]
    if options.runs is not None:
        trials = [replace(trial, runs=trial.runs[: options.runs]) for trial in trials]
    clock, complete, results = Clock(options.minutes), True, {}
    for trial in trials:
        records: list[dict[str, Any]] = []
        try:
            for record in measure(trial, root, clock, options.variants == "all"):
                records.append(record)  # noqa: PERF402 (the clock may end the loop; what is done is kept)
        except OutOfTimeError:
            say(f"{trial.name}: out of time after {len(records)} of {len(trial.runs)} runs; run the command again")
            complete = False
        if records:
            results[trial.name] = summarise(records) | {
                "recipe": trial.rgb_recipe.model_dump(mode="json"),
                "distillation": {
                    name: objective.model_dump(mode="json")
                    for name, objective in zip(STUDENTS, (trial.distillation, MIXED_4F), strict=True)
                },
                "dataset": trial.dataset.model_dump(
                    mode="json", exclude_defaults=True, exclude={"videos", "annotations"}
                ),
            }
            if options.variants:
                results[trial.name] |= {
                    "table_6": {kind: [record.get(kind) for record in records] for kind in TABLE_6},
                    "orderings": orderings(records),
                }
    if not results:
        return 1
    if options.keep and results:
        name = "table6.json" if options.variants else "distillation.json"
        kept = REPOSITORY / "benchmarks/results" / name
        write_json(kept, {"machine": machine(), "complete": complete, "results": results})
    first = next(iter(results.values()))
    if options.variants:
        pairs = [pair for result in results.values() for pair in result["orderings"]]
        holding = sum(pair["holds"] for pair in pairs)
        conditions = {"complete": complete, "results": results}
        emit("table_6_orderings", holding, "ordered pairs of rows", len(pairs), conditions=conditions)
        return 0
    emit(
        "distillation_gain",
        first["mixed4f_minus_baseline"]["mean"],
        "percentage points of video top-1, D3D at Mixed_4f − baseline",
        first["baseline"]["mean"],
        ratio=first["mixed4f"]["mean"] / first["baseline"]["mean"] if first["baseline"]["mean"] else None,
        conditions={"complete": complete, "results": results},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One training from its specification to the final weights: what ``train`` and the workflow's rules run."""

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline_lib.artefacts.atomic import write_bytes, write_json
from pipeline_lib.artefacts.layout import SPECIFICATION, TRAINING_LOG, WEIGHTS, Layout
from pipeline_lib.artefacts.records import beside_digests, content_digest, distribution_versions, torch_versions
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.sampling import INITIALISATION, generator
from pipeline_lib.configuration.experiments import RANDOM
from pipeline_lib.configuration.root import Hardware
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.configuration.training import Recipe
from pipeline_lib.device import choose_device, loader_workers
from pipeline_lib.errors import UserError
from pipeline_lib.tasks.base import load_task
from pipeline_lib.training import batch_norm
from pipeline_lib.training.batch_plan import plan_batches
from pipeline_lib.training.checkpoints import Checkpoints
from pipeline_lib.training.code import training_modules
from pipeline_lib.training.distribution import Ranks, joined
from pipeline_lib.training.inputs import (
    MicroBatches,
    motion_start_counts,
    open_training_list,
    open_validation_list,
    training_clips,
)
from pipeline_lib.training.metrics_log import Metrics, peak_gigabytes
from pipeline_lib.training.networks import build_network, grouped, initialise, load_network
from pipeline_lib.training.objectives.base import EndpointForward, TrainingObjective
from pipeline_lib.training.saving import Saving
from pipeline_lib.training.schedules import rate_arithmetic
from pipeline_lib.training.signals import EXIT_INTERRUPTED, stop_requests
from pipeline_lib.training.trainer import Machine, Trainer, place
from pipeline_lib.training.validation import Validation
from pipeline_lib.training.weights import save_weights


def train(
    specification: TrainingSpecification,
    root: Path,
    output: Path,
    num_workers: int | None = None,
    overfit: int | None = None,
) -> int:
    """Train one network; continue at the last checkpoint of the same origin.

    Args:
        specification: everything that determines the result.
        root: the output root; manifest, shards, teacher and first weights are found through it.
        output: the run's folder. Written: ``weights.safetensors`` (last), ``metrics.jsonl``, ``specification.json``;
            ``tensorboard/`` and, until the end, ``checkpoints/``.
        num_workers: decoding processes; None chooses. The result does not depend on it.
        overfit: train only on the first so many videos, again and again. A network that cannot memorise them has a
            fault. It is for trial folders; the workflow never sets it.

    Returns:
        0, or ``EXIT_INTERRUPTED`` after a signal (the state is saved; the same command continues).

    Raises:
        UserError: an input is missing or does not fit, or the loss is not finite.
    """
    layout, recipe = Layout(root), specification.recipe
    device = choose_device(specification.hardware.device)
    prepare_torch(specification.hardware, device)
    with (
        joined(device.type) as ranks,
        Stage(
            "train",
            training_modules(specification),
            output / WEIGHTS,
            [output / TRAINING_LOG, output / SPECIFICATION],
            exclusive=ranks.is_first,
        ) as stage,
    ):
        if device.type == "cuda":
            device = torch.device("cuda", ranks.local_rank)

        # What is read, and whether this training has been done already.
        objective = build_objective(specification)
        index = ranks.once_per_machine(lambda: open_training_list(specification, layout, objective, overfit))
        validation_index = ranks.once_per_machine(lambda: open_validation_list(specification, layout))
        # A list that only draws a curve shapes no weights: one more video in it must not train again.
        lists = {"clips": index}
        if validation_index is not None and recipe.validation_steps:
            lists["validation"] = validation_index
        if ranks.from_first(is_finished(stage, specification, layout, lists, device)):
            return 0
        plan = plan_batches(recipe, ranks.num_ranks, recipe.synchronise_batch_norm)
        rate = rate_arithmetic(recipe.schedule, recipe.global_batch)
        ranks.say(f"{len(index)} videos of {len(index.classes)} classes; {rate}; {plan.arithmetic()}")

        # What is trained, and what it learns from.
        network = first_network(specification, layout, len(index.classes), ranks)
        module = prepare_module(objective.attach(network), recipe, device, ranks)
        teacher = (
            load_teacher(teacher_path(specification, layout), device) if specification.objective.needs_teacher else None
        )
        losses = partial(objective.losses, teacher=teacher)
        workers = loader_workers(num_workers, device, ranks.num_local)
        clips = training_clips(index, objective, specification)
        starts = motion_start_counts(clips) if ranks.is_first else None
        if starts is not None:
            ranks.say(
                f"motion threshold: {starts.none_allowed} of {starts.videos} videos have no start that it allows, and "
                f"give their strongest clips; {starts.one_allowed} have one, which is both motion views"
            )
        batches = MicroBatches(clips, plan, workers, pin_memory=device.type == "cuda")
        validation = None
        if validation_index is not None:
            validation = Validation(
                validation_index,
                recipe,
                load_task(specification.objective.task or "classification"),
                specification.modality,
                specification.seed,
                plan.micro_batch,
                ranks,
                workers,
            )

        # What is written on the way.
        checkpoints = Checkpoints(output / "checkpoints", stage.record["digest"], recipe.keep_checkpoints)
        if ranks.is_first:
            checkpoints.set_aside_others()
        ranks.barrier()
        log = checkpoints.folder / TRAINING_LOG
        label = f"train {specification.experiment} {specification.split}-{specification.seed}"
        metrics = Metrics(recipe, label, device, log if ranks.is_first else None, output / "tensorboard")
        saving = Saving(recipe, checkpoints, device, writes=ranks.is_first)

        # From here on the running step is finished after a signal; before, there is no state to lose.
        with stop_requests() as request:
            machine = Machine(device, ranks, specification.hardware.compile, request)
            trainer = Trainer(
                module, losses, batches, index, recipe, specification.seed, machine, metrics, saving, validation
            )
            trainer.resume()
            if trainer.step:
                ranks.say(f"going on after step {trainer.step}")
            try:
                has_ended = trainer.run()
            except UserError as error:
                raise UserError(f"experiment {specification.experiment}: {error}") from error
            if not has_ended:
                ranks.say(f"stopped after step {trainer.step}; the same command goes on from there")
                return EXIT_INTERRUPTED
            if ranks.is_first:
                network = trainer.final_network()
                found = {} if starts is None else {"motion_starts": starts._asdict()}
                write_artefacts(output, network, metrics.log, specification, index, stage, found)
                stage.finish(figures(trainer, network) | found)
                ranks.say(f"time in this run: {shares(trainer.times.summary())}")
                checkpoints.remove()
        ranks.barrier()
    return 0


def prepare_torch(hardware: Hardware, device: torch.device) -> None:
    """Set the process up: threads and deterministic kernels.

    On the CPU the number of threads is part of the specification, because the order of float sums follows from it.
    """
    if device.type == "cpu":
        torch.set_num_threads(hardware.num_threads)
        torch.use_deterministic_algorithms(True)
    else:
        torch.use_deterministic_algorithms(hardware.deterministic, warn_only=True)
        torch.backends.cudnn.benchmark = not hardware.deterministic
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    # By default deterministic mode fills every new tensor, which finds bugs but costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def build_objective(specification: TrainingSpecification) -> TrainingObjective:
    """The objective that the specification names."""
    module = importlib.import_module(specification.objective.module)
    objective: TrainingObjective = module.build(specification)
    return objective


def is_finished(
    stage: Stage,
    specification: TrainingSpecification,
    layout: Layout,
    lists: Mapping[str, ClipIndex],
    device: torch.device,
) -> bool:
    """Describe the training by all that determines its result, and say whether the result exists already.

    Raises:
        UserError: the teacher's weights or those that it starts from are missing.
    """
    parameters = specification.model_dump(mode="json") | {name: index.digest for name, index in lists.items()}
    inputs = {name: value for index in lists.values() for name, value in index.inputs.items()}
    for path in (teacher_path(specification, layout), start_path(specification, layout)):
        if path is not None:
            if not path.is_file():
                raise UserError(f"{path} is missing: the experiment that makes it has to be trained first")
            inputs[path] = content_digest(path)
    versions = torch_versions(device.type)
    versions |= distribution_versions(["numpy", "simplejpeg", "opencv-contrib-python-headless"])
    summary = layout.summary(specification.dataset)
    return stage.is_finished(parameters, inputs, versions, {summary: content_digest(summary)})


def teacher_path(specification: TrainingSpecification, layout: Layout) -> Path | None:
    """Weights of the teacher, if there is one."""
    teacher = specification.teacher
    return None if teacher is None else layout.weights(teacher.experiment, str(teacher.split), str(teacher.seed))


def start_path(specification: TrainingSpecification, layout: Layout) -> Path | None:
    """Weights that the training starts from, if it does not start from random ones."""
    start = specification.start
    return None if start == RANDOM else layout.start(start)


def first_network(specification: TrainingSpecification, layout: Layout, num_classes: int, ranks: Ranks) -> nn.Module:
    """The network with its first weights: random, or those of another run if the specification names one.

    Raises:
        UserError: the other run's weights are of another network.
    """
    torch.manual_seed(int(generator(specification.seed, INITIALISATION, 0).integers(2**62)))
    network = build_network(specification.model, num_classes, specification.modality, specification.recipe.dropout)
    start = start_path(specification, layout)
    if start is not None:
        fresh = initialise(network, start)
        ranks.say(f"started from {start}; random: {grouped(fresh) or 'nothing'}")
    return network


def prepare_module(module: EndpointForward, recipe: Recipe, device: torch.device, ranks: Ranks) -> EndpointForward:
    """Move the module to its device and set up its batch normalisations as the recipe says."""
    if recipe.synchronise_batch_norm and ranks.num_ranks > 1:
        batch_norm.synchronise(module, device)
    if recipe.batch_norm_momentum is not None:
        batch_norm.set_momentum(module, recipe.batch_norm_momentum)
    return place(module, device)


def load_teacher(path: Path | None, device: torch.device) -> nn.Module:
    """A frozen teacher in eval mode.

    Raises:
        UserError: its weights are missing.
    """
    assert path is not None
    network, _ = load_network(path)
    return place(EndpointForward(network), device).eval().requires_grad_(False)


def input_description(specification: TrainingSpecification, motion_bound: float) -> dict[str, Any]:
    """What a trained network takes, for whoever reads its weights elsewhere: the entry ``input`` of their metadata.

    Args:
        specification: of the training.
        motion_bound: of the motion shards, in the unit of the motion; used for a network that sees motion.
    """
    sampling = specification.recipe.sampling
    clip = sampling.model_dump(
        mode="json", include={"num_frames", "stride", "frames_per_second", "spacing", "past_end", "crop"}
    )
    return {
        "modality": specification.modality,
        **clip,
        "resize": None if sampling.resize is None else list(sampling.resize),
        "short_side": None if sampling.short_side is None else list(sampling.short_side),
        "range": [-1.0, 1.0],
        "motion_bound": motion_bound if specification.modality == "flow" else None,
        "layout": "B C T H W",
    }


def write_artefacts(
    output: Path,
    network: nn.Module,
    log: bytes,
    specification: TrainingSpecification,
    index: ClipIndex,
    stage: Stage,
    found: Mapping[str, Any],
) -> None:
    """Write specification, log and weights. The weights come last, because they mark the training as finished.

    ``found`` is what the training found out about its clips, for the weights' metadata.
    """
    write_json(output / SPECIFICATION, specification.model_dump(mode="json"))
    write_bytes(output / TRAINING_LOG, log)
    save_weights(
        stage.output,
        network.state_dict(),
        {
            "specification": specification.model_dump(mode="json"),
            "provenance": stage.record | beside_digests([output / TRAINING_LOG, output / SPECIFICATION]),
            "classes": list(index.classes),
            "input": input_description(specification, index.motion_bound),
            **found,
        },
    )


def figures(trainer: Trainer, network: nn.Module) -> dict[str, Any]:
    """Measurements of this run, for its sidecar."""
    device = trainer.machine.device
    return {
        "seconds": trainer.times.summary(),
        "training_seconds": round(trainer.elapsed, 3),
        "device": str(device),
        "processes": trainer.machine.ranks.num_ranks,
        "peak_gigabytes": round(peak_gigabytes(device), 3),
        "batch_norms": len(batch_norm.batch_norms(network)),
    }


def shares(seconds: Mapping[str, float]) -> str:
    """Shares of the time by phase, as text."""
    whole = sum(seconds.values()) or 1.0
    return ", ".join(f"{name} {value / whole:.1%}" for name, value in seconds.items())

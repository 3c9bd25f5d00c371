"""One training from its specification to the final weights: what ``train`` and the workflow's rules run."""

import importlib
import os
import shutil
import sys
from pathlib import Path

import torch
from torch import nn

from pipeline_lib.artefacts.atomic import atomic_path, write_json
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.records import content_digest, distribution_versions, torch_versions
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.clips.index import ClipIndex, build_index
from pipeline_lib.clips.sampling import INITIALISATION, generator
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.training.batch_norm import batch_norms
from pipeline_lib.training.batch_plan import plan_batches
from pipeline_lib.training.checkpoints import Checkpoints
from pipeline_lib.training.code import training_modules
from pipeline_lib.training.distribution import Ranks, joined
from pipeline_lib.training.metrics_log import MetricsLog
from pipeline_lib.training.networks import build_network, choose_device, grouped, initialise, load_network, source_path
from pipeline_lib.training.objectives.base import EndpointForward, TrainingObjective
from pipeline_lib.training.signals import EXIT_INTERRUPTED, stop_requests
from pipeline_lib.training.trainer import Trainer, TrainingInterruptedError, place
from pipeline_lib.training.validation import Validation
from pipeline_lib.training.weights import save_weights


def prepare_torch(specification: TrainingSpecification, device: torch.device) -> None:
    """Set the process up: threads and deterministic kernels.

    On the CPU the number of threads is part of the specification, because the order of float sums follows from it.
    """
    hardware = specification.hardware
    if device.type == "cpu":
        torch.set_num_threads(hardware.num_threads)
        torch.use_deterministic_algorithms(True)
    else:
        torch.use_deterministic_algorithms(hardware.deterministic, warn_only=True)
        torch.backends.cudnn.benchmark = not hardware.deterministic
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    # Deterministic mode would fill every new tensor, which finds bugs and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def loader_workers(asked: int | None, device: torch.device, ranks: Ranks) -> int:
    """Decoding processes: as asked, else none on the CPU and most of this machine's cores beside a GPU.

    A CPU training keeps to the threads that its rule asked the scheduler for; there decoding is a few per cent of a
    step, and a process that competes for the training's own cores costs more than it decodes.
    """
    if asked is not None:
        return asked
    if device.type == "cpu":
        return 0
    return max(1, min(16, len(os.sched_getaffinity(0)) // ranks.num_local - 1))


def build_objective(specification: TrainingSpecification) -> TrainingObjective:
    """The objective that the specification names."""
    module = importlib.import_module(specification.objective.module)
    objective: TrainingObjective = module.build(specification)
    return objective


def load_teacher(specification: TrainingSpecification, layout: Layout, device: torch.device) -> nn.Module:
    """The frozen teacher, in eval mode.

    Raises:
        UserError: its weights are missing.
    """
    teacher = specification.teacher
    assert teacher is not None
    network, _ = load_network(layout.weights(teacher.experiment, str(teacher.split), str(teacher.seed)))
    return place(EndpointForward(network), device).eval().requires_grad_(False)


def describe_inputs(
    specification: TrainingSpecification, layout: Layout, index: ClipIndex, validation: ClipIndex | None = None
) -> dict[Path | str, str]:
    """What the training reads, and the digest of each."""
    inputs: dict[Path | str, str] = {**index.inputs}
    if validation is not None:
        inputs |= validation.inputs
    if specification.teacher is not None:
        teacher = specification.teacher
        path = layout.weights(teacher.experiment, str(teacher.split), str(teacher.seed))
        inputs[path] = _existing_digest(path)
    if specification.initialise_from is not None:
        path = source_path(layout, specification.initialise_from)
        inputs[path] = _existing_digest(path)
    return inputs


def _existing_digest(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is missing: the experiment that makes it has to be trained first")
    return content_digest(path)


def train(specification: TrainingSpecification, root: Path, output: Path, num_workers: int | None = None) -> int:
    """Train one network, going on from the last checkpoint of the same origin.

    Args:
        specification: everything that determines the result.
        root: the output root; manifest, shards, teacher and first weights are found through it.
        output: the run's folder. Written: ``weights.safetensors`` (last), ``metrics.jsonl``, ``specification.json``;
            ``tensorboard/`` and, until the end, ``checkpoints/``.
        num_workers: decoding processes; null chooses. The result does not depend on it.

    Returns:
        0, or ``EXIT_INTERRUPTED`` after a signal (the state is saved; the same command goes on).

    Raises:
        UserError: an input is missing or does not fit, or the loss is not finite.
    """
    device = choose_device(specification.hardware.device)
    prepare_torch(specification, device)
    with joined(device.type) as ranks:
        if device.type == "cuda":
            device = torch.device("cuda", ranks.local_rank)
        names = ("metrics.jsonl", "specification.json")
        with Stage(
            "train",
            training_modules(specification),
            output / "weights.safetensors",
            [output / name for name in names],
            exclusive=ranks.is_first,
        ) as stage:
            return _train_locked(specification, Layout(root), output, device, ranks, num_workers, stage)


def _train_locked(
    specification: TrainingSpecification,
    layout: Layout,
    output: Path,
    device: torch.device,
    ranks: Ranks,
    num_workers: int | None,
    stage: Stage,
) -> int:
    objective = build_objective(specification)
    motion = specification.motion if "flow" in objective.modalities else None
    if "flow" in objective.modalities and motion is None:
        raise UserError(f"experiment {specification.experiment} sees flow and names no motion kind (key motion)")
    index = build_index(
        layout,
        specification.dataset,
        specification.frame_format,
        motion,
        specification.num_shards,
        specification.split,
        "train",
        specification.objective.needs_strength,
        specification.train_share,
    )
    validation_index = _validation_index(specification, layout)
    summary = layout.summary(specification.dataset)
    clips = {"clips": index.digest} | ({} if validation_index is None else {"validation": validation_index.digest})
    finished = stage.is_finished(
        specification.model_dump(mode="json") | clips,
        describe_inputs(specification, layout, index, validation_index),
        torch_versions(device.type) | distribution_versions(["numpy", "simplejpeg", "opencv-contrib-python-headless"]),
        {summary: content_digest(summary)},
    )
    if ranks.from_first(finished):
        return 0

    plan = plan_batches(specification.recipe, ranks.num_ranks, specification.recipe.synchronise_batch_norm)
    if ranks.is_first:
        print(f"{len(index)} videos of {len(index.classes)} classes; {plan.arithmetic()}", file=sys.stderr)
    _seed_initialisation(specification.seed)
    network = build_network(
        specification.model, len(index.classes), specification.modality, specification.recipe.dropout
    )
    if specification.initialise_from is not None:
        path = source_path(layout, specification.initialise_from)
        fresh = initialise(network, path)
        if ranks.is_first:
            print(f"started from {path}; random: {grouped(fresh) or 'nothing'}", file=sys.stderr)
    teacher = load_teacher(specification, layout, device) if specification.objective.needs_teacher else None
    checkpoints = Checkpoints(output / "checkpoints", stage.record["digest"], specification.recipe.keep_checkpoints)
    if ranks.is_first:
        checkpoints.set_aside_others()
    ranks.barrier()

    with stop_requests() as request:
        trainer = Trainer(
            specification,
            index,
            network,
            objective,
            teacher,
            device,
            ranks,
            plan,
            checkpoints,
            loader_workers(num_workers, device, ranks),
            request,
        )
        if validation_index is not None:
            trainer.validation = Validation(
                validation_index,
                specification.recipe,
                specification.modality,
                specification.seed,
                plan.micro_batch,
                ranks,
                trainer.num_workers,
            )
        found = checkpoints.latest()
        log_size = trainer.restore(*found) if found is not None else 0
        del found
        if ranks.is_first and trainer.step:
            print(f"going on after step {trainer.step}", file=sys.stderr)
        log = None
        if ranks.is_first:
            log = MetricsLog(checkpoints.folder / "metrics.jsonl", output / "tensorboard", log_size, trainer.step)
        try:
            trainer.run(log)
        except TrainingInterruptedError:
            if ranks.is_first:
                print(f"stopped after step {trainer.step}; the same command goes on from there", file=sys.stderr)
            return EXIT_INTERRUPTED
        finally:
            if log is not None:
                log.close()
        if ranks.is_first:
            _finish(trainer, output, stage)
    ranks.barrier()
    return 0


def _validation_index(specification: TrainingSpecification, layout: Layout) -> ClipIndex | None:
    """The validation list, where the recipe looks at it during the training."""
    if not specification.recipe.validation_steps:
        return None
    place = (specification.dataset, specification.frame_format)
    motion = specification.motion if specification.modality == "flow" else None
    return build_index(layout, *place, motion, specification.num_shards, specification.split, "validation")


def _seed_initialisation(seed: int) -> None:
    torch.manual_seed(int(generator(seed, INITIALISATION, 0).integers(2**62)))


def _finish(trainer: Trainer, output: Path, stage: Stage) -> None:
    """Write the final artefacts, the weights last; then the checkpoints are of no more use."""
    specification = trainer.specification
    network = trainer.final_network()
    write_json(output / "specification.json", specification.model_dump(mode="json"))
    with atomic_path(output / "metrics.jsonl") as temporary:
        shutil.copyfile(trainer.checkpoints.folder / "metrics.jsonl", temporary)
    sampling = specification.recipe.sampling
    save_weights(
        output / "weights.safetensors",
        network.state_dict(),
        {
            "specification": specification.model_dump(mode="json"),
            "provenance": stage.record,
            "classes": list(trainer.index.classes),
            "input": {
                "modality": specification.modality,
                "num_frames": sampling.num_frames,
                "stride": sampling.stride,
                "crop": sampling.crop,
                "short_side": list(sampling.short_side),
                "range": [-1.0, 1.0],
                "motion_bound": trainer.index.motion_bound if specification.modality == "flow" else None,
                "layout": "B C T H W",
            },
        },
    )
    times = trainer.times.summary()
    whole = sum(times.values())
    figures = {
        "seconds": times,
        "device": str(trainer.device),
        "processes": trainer.ranks.num_ranks,
        "batch_norms": len(batch_norms(network)),
    }
    stage.finish(figures)
    shares = ", ".join(f"{name} {value / whole:.1%}" for name, value in times.items() if whole > 0)
    print(f"time in this run: {shares}", file=sys.stderr)
    trainer.checkpoints.remove()

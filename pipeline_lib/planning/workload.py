"""What a target will cost: jobs, disk, processor and GPU hours per stage.

Work is counted from the configuration and, if they exist, from manifests. Rates come from the sidecars in this output
root (``*.run.json``: the same machine, the same videos), or else from the figures below. The hours of a training are
its multiply-adds divided by the speed of the GPU or the cores.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.manifest_summary import read_summary
from pipeline_lib.configuration.experiments import Experiment
from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json
from pipeline_lib.planning.plan import Plan
from pipeline_lib.planning.run import Run
from pipeline_lib.planning.sharding import listed_videos

PROBED_PER_CORE = 600.0
"""Frames of 340×256 per second that one core decodes while it probes a video, measured on a server processor."""
FRAMES_PER_CORE = 250.0
"""Frames of 340×256 per second that one core decodes, scales and encodes as JPEG, measured on that processor."""
BYTES_PER_FRAME = 0.16
"""Bytes per pixel of a JPEG frame of quality 75, and of a grey flow frame of quality 95 over its two halves."""
ASPECT = 4 / 3
SECONDS_PER_VIDEO = 10.0
FRAMES_PER_SECOND = 25.0


@dataclass
class Speeds:
    """Speeds of a GPU and of a core; None if they were not measured here.

    Attributes:
        gpu_teraflops: operations per second (multiply and add are two) that a training reaches on one GPU, in 10¹².
        gpu_pairs: pairs of 340×256 per second of flow on one GPU.
        core_gigaflops: operations per second of one core in training, in 10⁹.
    """

    gpu_teraflops: float | None = None
    gpu_pairs: float | None = None
    core_gigaflops: float = 60.0


@dataclass
class Stage:
    """One line of the table; hours are of one core or one GPU."""

    stage: str
    what: str
    jobs: int
    gigabytes: float = 0.0
    cpu_hours: float | None = 0.0
    gpu_hours: float | None = 0.0
    basis: str = ""
    rule: str = ""
    days: float | None = field(default=None)


def _count_rows(path: Path) -> int:
    with path.open("rb") as file:
        return max(sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1, 0)


def num_videos(plan: Plan, dataset: str) -> tuple[int, int, str]:
    """Number of videos of a data set: on all lists, on the training list, and where the numbers are from.

    Raises:
        UserError: there is no manifest and no list to count.
    """
    section = plan.configuration.datasets[dataset]
    summary = plan.layout.summary(dataset)
    if summary.exists():
        content = read_summary(summary)
        accepted = content.status.get("accepted", 0)
        train = content.subsets.get("subset_1", {}).get("train", {}).get("accepted", accepted)
        return accepted, train, "the manifest"
    if section.generated is not None:
        generated = section.generated
        return generated.num_train + generated.num_validation, generated.num_train, "the configuration"
    lists = {name: Path(value) for name, value in section.annotations.items() if value and Path(value).is_file()}
    listed = None if lists else listed_videos(section)
    if listed is not None:
        return len(listed), sum(video.subsets[0] == "train" for video in listed), "the folders"
    if not lists:
        raise UserError(
            f"datasets.{dataset}.annotations: no list to count the videos of; docs/configuration.md (section “Your own "
            "data”) says what to set."
        )
    counts = {name: _count_rows(path) for name, path in lists.items()}
    return sum(counts.values()), counts.get("train", sum(counts.values())), "the lists' lines"


def frames_per_video(plan: Plan, dataset: str, frame_format: str) -> float:
    """Frames of an average video, as stored."""
    generated = plan.configuration.datasets[dataset].generated
    if generated is not None:
        return float(generated.num_frames)
    rate = plan.configuration.frame_formats[frame_format].frames_per_second or FRAMES_PER_SECOND
    return SECONDS_PER_VIDEO * rate


def sidecars(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The sidecars of finished shards below a folder."""
    for path in sorted(folder.glob("*.h5.run.json")):
        try:
            yield parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue


def measured(folder: Path, unit: str) -> tuple[float, float] | None:
    """Units per second and job, and bytes per unit, of the finished shards below a folder; None without any."""
    units = seconds = size = 0.0
    for sidecar in sidecars(folder):
        figures = sidecar.get("figures", {})
        units += figures.get(unit, 0)
        seconds += sidecar.get("seconds", 0.0)
        size += figures.get("bytes", 0)
    return (units / seconds, size / units) if units and seconds else None


def trainings_behind(runs: Iterable[Run]) -> list[Run]:
    """Every training that some runs need, each once, sources first."""
    found: dict[Run, None] = {}
    for run in runs:
        found |= dict.fromkeys(trainings_behind(run.sources))
        if isinstance(run.entry, Experiment):
            found[run] = None
    return list(found)


def _gmacs(run: Run) -> float:
    from pipeline_lib.models.complexity import count

    specification = run.training
    sampling = specification.recipe.sampling
    channels = 3 if specification.modality == "rgb" else 2
    model = specification.model
    return count(model.name, sampling.num_frames, sampling.crop, in_channels=channels, options=model.options).gmacs


def workload(plan: Plan, target: str, speeds: Speeds) -> list[Stage]:
    """The stages of a target.

    Args:
        plan: the jobs of a configuration.
        target: a target of ``workflow/targets.yaml``.
        speeds: of a GPU and of a core.

    Raises:
        UserError: there is no such target, or no list or manifest to count a data set's videos.
    """
    names = plan.experiments_of(target)
    runs = trainings_behind(plan.runs(*names))
    stages: list[Stage] = []
    places: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        motions = places.setdefault((run.dataset, run.trained.frame_format), set())
        if run.motion is not None and run.reads_motion:
            motions.add(run.motion)
    for dataset in dict.fromkeys(dataset for dataset, _ in places):
        total, _, source = num_videos(plan, dataset)
        frames = total * max(frames_per_video(plan, *place) for place in places if place[0] == dataset)
        hours = 0.0 if plan.configuration.datasets[dataset].probe == "none" else frames / PROBED_PER_CORE / 3600
        about = f"{total:,} videos by {source}"
        stages.append(Stage("manifest", dataset, 1, cpu_hours=hours, basis=about, rule="manifest"))
    for (dataset, frame_format), motions in places.items():
        stages += _data_stages(plan, dataset, frame_format, sorted(motions), speeds)
    gpu = plan.configuration.hardware.device != "cpu" and speeds.gpu_teraflops is not None
    for run in runs:
        stages.append(_training(run, speeds, gpu))
    for run in runs:
        if run.experiment in names:
            stages.append(_evaluation(plan, run, speeds, gpu))
    return stages


def _data_stages(plan: Plan, dataset: str, frame_format: str, motions: list[str], speeds: Speeds) -> list[Stage]:
    """Frames and every motion kind of one frame format."""
    shards = plan.configuration.datasets[dataset].shards
    total, _, _ = num_videos(plan, dataset)
    frames = total * frames_per_video(plan, dataset, frame_format)
    short = plan.configuration.frame_formats[frame_format].short_side
    pixels = short * short * ASPECT
    scale = pixels / (340 * 256)
    folder = plan.layout.frames(dataset, frame_format, "000").parent
    found = measured(folder, "frames")
    rate, size = found if found else (FRAMES_PER_CORE / scale, BYTES_PER_FRAME * pixels)
    basis = "measured here" if found else "this program's figure"
    where = f"{dataset}/{frame_format}"
    stages = [Stage("frames", where, shards, frames * size / 1e9, frames / rate / 3600, 0.0, basis, "extract_frames")]
    for motion in motions:
        kind = plan.configuration.motions[motion]
        found = measured(plan.layout.motion(dataset, frame_format, motion, "000").parent, "pairs")
        stage = Stage("motion", f"{where}/{motion}", shards, 2 * frames * BYTES_PER_FRAME * pixels / 1e9)
        uses_gpu = any(method.uses_gpu for method in kind.methods)
        stage.rule = "extract_motion" if uses_gpu else "extract_motion_on_cpu"
        on_gpu = plan.configuration.hardware.device != "cpu" and speeds.gpu_pairs is not None
        if found:
            stage.cpu_hours, stage.basis = frames / found[0] / 3600, "measured here"
        elif on_gpu and all(method.uses_gpu for method in kind.methods):
            assert speeds.gpu_pairs is not None
            stage.cpu_hours, stage.gpu_hours = 0.0, frames * scale / speeds.gpu_pairs / 3600
            stage.basis = "--gpu-pairs"
        else:
            stage.cpu_hours = frames * scale / min(method.pairs_per_core for method in kind.methods) / 3600
            stage.basis = "this program's figure, on the CPU"
        stages.append(stage)
    return stages


def _compute(stage: Stage, operations: float, speeds: Speeds, gpu: bool) -> Stage:
    """Fill in the hours of so many operations."""
    if gpu:
        assert speeds.gpu_teraflops is not None
        stage.cpu_hours, stage.gpu_hours = 0.0, operations / (speeds.gpu_teraflops * 1e12) / 3600
        stage.basis += " over --gpu-teraflops"
    else:
        stage.cpu_hours = operations / (speeds.core_gigaflops * 1e9) / 3600
        stage.basis += " over --core-gigaflops"
    return stage


def _training(run: Run, speeds: Speeds, gpu: bool) -> Stage:
    specification = run.training
    recipe = specification.recipe
    passes = specification.objective.passes * _gmacs(run)
    if run.teacher is not None:
        passes += _gmacs(run.teacher)
    clips = recipe.steps * recipe.global_batch
    stage = Stage("training", str(run), 1, rule=specification.stage)
    stage.basis = f"{recipe.steps:,} steps × {recipe.global_batch} clips × {passes:.1f} G multiply-adds"
    return _compute(stage, 2e9 * passes * clips, speeds, gpu)


def _evaluation(plan: Plan, run: Run, speeds: Speeds, gpu: bool) -> Stage:
    from pipeline_lib.clips.sampling import whole_length

    specification = run.training
    total, train, _ = num_videos(plan, specification.dataset)
    sampling = specification.recipe.sampling
    operations = 0.0
    judged = [(name, total - train) for name in run.trained.protocols]
    if run.trained.retrieval is not None:
        judged.append((run.trained.retrieval, total))
    for name, number in judged:
        protocol = plan.configuration.protocols[name]
        if protocol.num_clips == "all_frames":
            frames = round(frames_per_video(plan, specification.dataset, specification.frame_format))
            stride = float(sampling.stride)
            if sampling.frames_per_second is not None:
                rate = plan.configuration.frame_formats[specification.frame_format].frames_per_second
                stride *= (rate or FRAMES_PER_SECOND) / sampling.frames_per_second
            clips = whole_length(protocol, sampling.num_frames, stride, frames) / sampling.num_frames
        else:
            clips = float(protocol.num_clips)
        area = ((protocol.crop or sampling.crop) / sampling.crop) ** 2
        operations += 2e9 * _gmacs(run) * clips * protocol.num_crops * area * number
    stage = Stage("evaluation", str(run), len(judged), rule="evaluate_run", basis=f"{total - train:,} videos")
    return _compute(stage, operations, speeds, gpu)


def as_rows(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    """Plain data."""
    return [asdict(stage) for stage in stages]

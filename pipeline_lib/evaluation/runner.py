"""The evaluation stage: a trained network predicts for every video under a protocol; figures are computed.

The stage reads only what the network sees and what the task compares with: an RGB network needs no motion shard.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.layout import METRICS, SCORES, Layout
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import content_digest, distribution_versions, torch_versions
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.artefacts.tables import read_table
from pipeline_lib.clips.index import ClipIndex, build_index
from pipeline_lib.configuration.specification import EvaluationSpecification
from pipeline_lib.device import loader_workers
from pipeline_lib.evaluation.code import evaluation_modules
from pipeline_lib.evaluation.parameters import judged_parameters
from pipeline_lib.evaluation.results import read_metrics, write_metrics
from pipeline_lib.evaluation.trained import TrainedNetwork, load_run
from pipeline_lib.tasks.base import Task, load_task
from pipeline_lib.tasks.files import figures_of
from pipeline_lib.tasks.outputs import Forward, VideoOutputs, video_outputs


@dataclass(frozen=True)
class Judged:
    """A trained network and how it is judged: what the stages ``evaluate`` and ``retrieve`` have in common.

    Attributes:
        specification: the run and the protocol.
        layout: of the output root.
        trained: the network.
        task: what it predicts.
        num_workers: decoding processes.
    """

    specification: EvaluationSpecification
    layout: Layout
    trained: TrainedNetwork
    task: Task
    num_workers: int

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that are read of a clip."""
        return self.task.modalities(self.specification.training.modality)

    def index(self, subset: str) -> ClipIndex:
        """The videos of a list.

        Raises:
            UserError: none can be read, or the network was trained for other classes.
        """
        training = self.specification.training
        index = build_index(
            self.layout,
            training.dataset,
            training.frame_format,
            training.motion if "flow" in self.modalities else None,
            training.num_shards,
            training.split,
            subset,
        )
        self.task.check(self.trained.classes, index, f"{self.weights} on {training.dataset}")
        return index

    @property
    def weights(self) -> Path:
        """The run's weights."""
        training = self.specification.training
        return self.layout.weights(training.experiment, str(training.split), str(training.seed))

    @property
    def summary(self) -> Path:
        """Path of the manifest's summary."""
        return self.layout.summary(self.specification.training.dataset)

    def outputs(self, index: ClipIndex, forward: Forward, done: set[str] | None = None) -> Iterator[VideoOutputs]:
        """The outputs of ``forward`` for the protocol's clips of each video that is not done."""
        known = done or set()
        clips = self.task.clips(
            index, self.specification.protocol, self.specification.training.recipe.sampling, self.modalities
        )
        return video_outputs(
            clips,
            self.trained.computed(forward),
            self.trained.device,
            self.num_workers,
            lambda row: index.ids[row] in known,
        )

    def parameters(self, **indices: ClipIndex) -> dict[str, Any]:
        """Parameters of the evaluation for a record, with the digest of what each index selects."""
        return judged_parameters(self.specification) | {
            "device": self.trained.device.type,
            **{name: index.digest for name, index in indices.items()},
        }

    def inputs(self, *indices: ClipIndex) -> dict[Path | str, str]:
        """The inputs for a record: the manifest, the weights and the shards."""
        found: dict[Path | str, str] = {path: content_digest(path) for path in (self.summary, self.weights)}
        for index in indices:
            found |= index.inputs
        return found

    def versions(self) -> dict[str, str]:
        """Versions of the tools that influence predictions."""
        return torch_versions(self.trained.device.type) | distribution_versions(
            ["simplejpeg", "opencv-contrib-python-headless", "h5py", "numpy"]
        )

    def names(self) -> dict[str, Any]:
        """The run's name in its figures."""
        training = self.specification.training
        return {
            "experiment": training.experiment,
            "split": training.split,
            "seed": training.seed,
            "protocol": self.specification.protocol_name,
            "dataset": training.dataset,
        }


def judged(specification: EvaluationSpecification, root: Path, num_workers: int | None) -> Judged:
    """Load the network of a run, to judge it.

    Args:
        specification: the run and the protocol.
        root: output root, where manifest, shards and weights lie.
        num_workers: decoding processes; None chooses. The result does not depend on it.

    Raises:
        UserError: the weights are missing, damaged or of another run.
    """
    layout = Layout(root)
    trained = load_run(layout, specification.training)
    workers = loader_workers(num_workers, trained.device)
    return Judged(specification, layout, trained, load_task(specification.task), workers)


def subset_counts(layout: Layout, dataset: str, split: int, subset: str, num_evaluated: int) -> dict[str, int]:
    """How many videos of a list were accepted, rejected and evaluated: counts for ``metrics.json``.

    Returns:
        ``listed``, ``accepted``, ``rejected``, ``missing`` (by the manifest), ``evaluated``, and
        ``rejected_later`` (accepted, but a later stage could not use them).
    """
    column = f"subset_{split}"
    table = read_table(layout.manifest(dataset), ["status", column]).to_pandas()
    status = table.loc[table[column] == subset, "status"].value_counts()
    counts = {name: int(status.get(name, 0)) for name in ("accepted", "rejected", "missing")}
    return {
        "listed": int(status.sum()),
        **counts,
        "evaluated": num_evaluated,
        "rejected_later": counts["accepted"] - num_evaluated,
    }


def evaluate(
    specification: EvaluationSpecification, root: Path, output: Path, num_workers: int | None = None
) -> dict[str, Any]:
    """Make ``scores.h5`` and ``metrics.json`` of one run. After a kill the same call continues.

    Args:
        specification: the run and the protocol.
        root: output root, where manifest, shards and weights lie.
        output: folder of the two files.
        num_workers: decoding processes; None chooses. The result does not depend on it.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: an input is missing or unreadable, or the network was trained for other classes.
    """
    training, subset = specification.training, specification.protocol.subset
    scores, metrics = output / SCORES, output / METRICS
    modules = evaluation_modules(training.model.name, specification.task)
    with Stage("evaluate", modules, scores, [metrics], root) as stage:
        run = judged(specification, root, num_workers)
        index = run.index(subset)
        if stage.is_finished(run.parameters(clips=index), run.inputs(index), run.versions()):
            return read_metrics(metrics)
        with run.task.open_part(scores, stage.record["digest"], run.trained.classes) as part:
            resumed = part.resumed
            forward = run.task.forward(run.trained.network, training.modality)
            with Progress(f"evaluate {training.experiment}", len(index), "videos", initial=resumed) as progress:
                for found in run.outputs(index, forward, part.done):
                    part.append(index.ids[found.row], found)
                    progress.advance()
            part.finish(index, subset, stage.record)
        counts = subset_counts(run.layout, training.dataset, training.split, subset, len(index))
        record = run.names() | {"subset": subset}
        record |= {"task": run.task.name, "counts": counts} | figures_of(run.task.name, scores)
        write_metrics(metrics, record)
        stage.finish({"videos": len(index), "resumed_videos": resumed})
    return record

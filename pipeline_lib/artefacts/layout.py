"""Where every artefact lies under the output root: the only place that spells these paths."""

from dataclasses import dataclass
from pathlib import Path

SHAPES_NO_ARTEFACT = True


# Names of files that a stage writes into the folder that it is given.
WEIGHTS, TRAINING_LOG, SPECIFICATION = "weights.safetensors", "metrics.jsonl", "specification.json"
SCORES, METRICS, RETRIEVAL = "scores.h5", "metrics.json", "retrieval.json"
SUMMARY, MANIFEST, BOXES, SHARD_LISTS = "summary.json", "manifest.parquet", "boxes.parquet", "shards"
GENERATED = "generated.json"


def shard_names(num_shards: int) -> list[str]:
    """The names of a data set's shards, ``000`` … , in order."""
    width = max(3, len(str(num_shards - 1)))
    return [f"{index:0{width}d}" for index in range(num_shards)]


# How many parts an artefact's path has below each folder of the output root.
_DEPTHS = {
    "media": range(2, 4),
    "downloads": range(2, 3),
    "manifests": range(2, 4),
    "frames": range(3, 4),
    "motion": range(4, 5),
    "imported": range(1, 4),
    "experiments": range(3, 4),
    "trials": range(3, 4),
    "evaluations": range(4, 5),
    "report": range(1, 2),
}

# Files that are made together: how deep their folder lies, and which of them has the record.
_CARRIERS = {
    "media": (2, GENERATED),
    "manifests": (2, SUMMARY),
    "experiments": (3, WEIGHTS),
    "trials": (3, WEIGHTS),
    "evaluations": (4, SCORES),
}

# Files beside those, with a record of their own.
_RECORDED = {RETRIEVAL}


@dataclass(frozen=True)
class Layout:
    """Paths of the artefacts below one output root (docs/architecture.md: what passes from stage to stage).

    Snakemake calls the methods with wildcards in braces (``layout.frames("{dataset}", …)``); the library
    calls them with names.
    """

    root: Path

    @classmethod
    def above(cls, path: Path) -> "Layout | None":
        """The layout whose output root an artefact lies below; None for a file that lies somewhere else."""
        parts = path.absolute().parts
        fits = [
            position
            for position in range(1, len(parts) - 1)
            if parts[position] in _DEPTHS and len(parts) - position - 1 in _DEPTHS[parts[position]]
        ]
        if not fits:
            return None
        # The innermost folder, unless a data set or an experiment has the name of a folder of the root.
        innermost = fits[-1]
        return cls(Path(*parts[: innermost - 1 if innermost - 1 in fits else innermost]))

    @staticmethod
    def rooms() -> tuple[str, ...]:
        """The folders of an output root that hold artefacts."""
        return tuple(_DEPTHS)

    @staticmethod
    def owns(key: str) -> bool:
        """Whether a record's key is a path below the output root, and not the name of a file from outside."""
        return "/" in key and key.partition("/")[0] in _DEPTHS

    def carrier(self, path: Path) -> Path | None:
        """The artefact that has the record of a file made with it; None if the file has one of its own, or none."""
        parts = Path(self.key(path) or "").parts
        depth, name = _CARRIERS.get(parts[0] if parts else "", (0, ""))
        if len(parts) <= depth or not depth:
            return None
        carrier = self.root.joinpath(*parts[:depth], name)
        return carrier if path.absolute() != carrier.absolute() and parts[-1] not in _RECORDED else None

    def target(self, path: Path) -> Path | None:
        """What Snakemake makes an artefact again with, and all that belongs to it; None if no rule makes it."""
        parts = Path(self.key(path) or "").parts
        room = parts[0] if parts else ""
        if room == "media" and len(parts) > 1:
            return self.media_list(parts[1], "train")
        if room not in _DEPTHS or room == "trials" or parts[:2] == ("imported", "downloads"):
            return None
        if path.name.endswith(".run.json"):
            path = path.with_name(path.name.removesuffix(".run.json"))
        return self.carrier(path) or path

    def key(self, path: Path) -> str | None:
        """How records name an artefact: its path below the root, the same on every machine; None if it lies outside."""
        try:
            return path.absolute().relative_to(self.root.absolute()).as_posix()
        except ValueError:
            return None

    def media_folder(self, dataset: str) -> Path:
        """Folder with the videos of a generated data set, ``train.csv`` and ``validation.csv``."""
        return self.root / "media" / dataset

    def media_list(self, dataset: str, subset: str) -> Path:
        """The list of a generated data set's videos in one subset."""
        return self.media_folder(dataset) / f"{subset}.csv"

    def generated(self, dataset: str) -> Path:
        """What a generated data set's videos were made from, and which files they are."""
        return self.media_folder(dataset) / GENERATED

    def flag(self, what: str, dataset: str) -> Path:
        """An empty file whose time says that the generated videos, or the manifest, of a data set are made again."""
        return self.root / ".planned" / f"{dataset}.{what}"

    def chosen_shards(self, dataset: str) -> Path:
        """How many shards a data set has had since its manifest was first made, where the configuration sets none."""
        return self.root / ".planned" / f"{dataset}.shards"

    def accepted(self) -> Path:
        """What a user has said to be equivalent to what the configuration asks for."""
        return self.root / ".planned" / "accepted.json"

    def download_summary(self, download: str) -> Path:
        """Counts and failures of an optional download."""
        return self.root / "downloads" / download / SUMMARY

    def manifest_folder(self, dataset: str) -> Path:
        """Folder with ``manifest.parquet``, ``summary.json`` and ``shards/``."""
        return self.root / "manifests" / dataset

    def manifest(self, dataset: str) -> Path:
        """The data set's table, one row per listed video."""
        return self.manifest_folder(dataset) / MANIFEST

    def summary(self, dataset: str) -> Path:
        """Counts, classes and digest of the manifest."""
        return self.manifest_folder(dataset) / SUMMARY

    def shard_lists(self, dataset: str) -> Path:
        """Folder of the shards' lists."""
        return self.manifest_folder(dataset) / SHARD_LISTS

    def shard_list(self, dataset: str, shard: str) -> Path:
        """The accepted videos of one shard, as JSON."""
        return self.shard_lists(dataset) / f"{shard}.json"

    def frames(self, dataset: str, frame_format: str, shard: str) -> Path:
        """Packed shard of JPEG frames."""
        return self.root / "frames" / dataset / frame_format / f"{shard}.h5"

    def motion(self, dataset: str, frame_format: str, motion: str, shard: str) -> Path:
        """Packed shard of a motion kind (flow, flow edges, …)."""
        return self.root / "motion" / dataset / frame_format / motion / f"{shard}.h5"

    def strength(self, dataset: str, frame_format: str, motion: str, shard: str) -> Path:
        """Table with the strength of each frame's motion, beside its motion shard."""
        return self.motion(dataset, frame_format, motion, shard).with_suffix(".strength.parquet")

    def imported(self, name: str) -> Path:
        """Weights that were imported from a public checkpoint."""
        return self.root / "imported" / f"{name}.safetensors"

    def public_checkpoints(self) -> Path:
        """Folder of downloaded checkpoints, as their publishers wrote them."""
        return self.root / "imported" / "downloads"

    def export(self, experiment: str, split: str, seed: str) -> Path:
        """Folder of an exported network."""
        return self.root / "exports" / experiment / f"{split}-{seed}"

    def experiment(self, experiment: str, split: str, seed: str) -> Path:
        """Folder of one training; ``weights.safetensors`` in it is the final artefact."""
        return self.root / "experiments" / experiment / f"{split}-{seed}"

    def folder_of(self, experiment: str) -> Path:
        """Folder of all trainings of an experiment."""
        return self.root / "experiments" / experiment

    def evaluations_of(self, experiment: str) -> Path:
        """Folder of all evaluations of an experiment."""
        return self.root / "evaluations" / experiment

    def trial(self, experiment: str, split: str, seed: str) -> Path:
        """Folder of a training that somebody changed for once; no rule reads it."""
        return self.root / "trials" / experiment / f"{split}-{seed}"

    def weights(self, experiment: str, split: str, seed: str) -> Path:
        """The final weights of one training."""
        return self.experiment(experiment, split, seed) / WEIGHTS

    def training_log(self, experiment: str, split: str, seed: str) -> Path:
        """The losses of one training, a JSON object per line."""
        return self.experiment(experiment, split, seed) / TRAINING_LOG

    def start(self, source: str) -> Path:
        """The weights that a start names: ``{experiment}/{split}-{seed}`` or ``imported/NAME``."""
        room, _, name = source.partition("/")
        return self.imported(name) if room == "imported" else self.root / "experiments" / source / WEIGHTS

    def trained(self) -> list[str]:
        """The trainings whose weights are there, as ``{experiment}/{split}-{seed}``, sorted."""
        folder = self.root / "experiments"
        return sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/*/{WEIGHTS}"))

    def evaluated(self, experiment: str, split: str, seed: str) -> list[Path]:
        """The metrics of one training that are there, under whichever protocol, sorted."""
        return sorted(self.evaluation(experiment, split, seed, "x").parent.glob(f"*/{METRICS}"))

    def evaluation(self, experiment: str, split: str, seed: str, protocol: str) -> Path:
        """Folder of one evaluation: ``scores.h5`` and ``metrics.json``."""
        return self.root / "evaluations" / experiment / f"{split}-{seed}" / protocol

    def scores(self, experiment: str, split: str, seed: str, protocol: str) -> Path:
        """Predictions of one evaluation, clip by clip."""
        return self.evaluation(experiment, split, seed, protocol) / SCORES

    def metrics(self, experiment: str, split: str, seed: str, protocol: str) -> Path:
        """Figures computed from the scores."""
        return self.evaluation(experiment, split, seed, protocol) / METRICS

    def retrieval(self, experiment: str, split: str, seed: str, protocol: str) -> Path:
        """Nearest-neighbour figures of a run's features, from a protocol's clips."""
        return self.evaluation(experiment, split, seed, protocol) / RETRIEVAL

    def report(self, name: str) -> Path:
        """The self-contained HTML page of a target."""
        return self.root / "report" / f"{name}.html"

    def log(self, *parts: str) -> Path:
        """A rule's log file."""
        return self.root / "logs" / Path(*parts[:-1]) / f"{parts[-1]}.log"

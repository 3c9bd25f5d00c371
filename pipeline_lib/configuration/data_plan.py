"""From a checked configuration to the jobs of the data: manifests, frames and motion, and where their shards lie."""

from pathlib import Path

from pipeline_lib.artefacts.layout import Layout, shard_names
from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.configuration.specification import FramesSpecification, ManifestSpecification, MotionSpecification

SUBSETS = ("train", "validation")


class DataPlan:
    """The jobs before any training.

    Args:
        configuration: a checked configuration.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.layout = Layout(Path(configuration.output))

    def dataset(self, name: str) -> Dataset:
        """The data set as ``manifest build`` reads it: a generated one as the table that ``generate`` wrote."""
        dataset = self.configuration.datasets[name]
        if dataset.format != "generated":
            return dataset
        return dataset.model_copy(
            update={
                "format": "table",
                "annotations": {subset: str(self.layout.media_list(name, subset)) for subset in SUBSETS},
                "videos": [str(self.layout.media_folder(name))],
                "generated": None,
            }
        )

    def generate(self, name: str) -> ManifestSpecification:
        """What ``generate`` gets: nothing but what shapes the videos."""
        dataset = self.configuration.datasets[name]
        return ManifestSpecification(name=name, dataset=Dataset(format="generated", generated=dataset.generated))

    def manifest(self, name: str) -> ManifestSpecification:
        """What ``manifest build`` gets. Flips are the trainer's concern: a change redoes no manifest."""
        dataset = self.dataset(name).model_copy(update={"horizontal_flip": "allowed"})
        return ManifestSpecification(name=name, dataset=dataset)

    def annotation_files(self, name: str) -> list[str]:
        """The files whose change redoes the manifest: the lists, and of folders of lists each file."""
        files: list[str] = []
        dataset = self.dataset(name)
        for value in (*dataset.annotations.values(), dataset.filter.ids, dataset.filter.classes):
            if value is None:
                continue
            path = Path(value)
            files += sorted(str(file) for file in path.iterdir() if file.is_file()) if path.is_dir() else [value]
        return files

    def shards(self, dataset: str) -> list[str]:
        """The names of a data set's shards."""
        return shard_names(self.configuration.datasets[dataset].num_shards)

    def frames(self, dataset: str, frame_format: str) -> FramesSpecification:
        """What ``extract-frames`` gets."""
        return FramesSpecification(
            dataset=dataset,
            frame_format=frame_format,
            frames=self.configuration.frame_formats[frame_format],
            on_decode_error=self.configuration.datasets[dataset].on_decode_error,
        )

    def motion(self, dataset: str, frame_format: str, motion: str) -> MotionSpecification:
        """What ``extract-motion`` gets."""
        return MotionSpecification(
            dataset=dataset,
            frame_format=frame_format,
            motion=motion,
            motion_kind=self.configuration.motions[motion],
            device=self.configuration.hardware.device,
        )

    def frame_shards(self, dataset: str, frame_format: str) -> list[Path]:
        """Every shard of frames."""
        return [self.layout.frames(dataset, frame_format, shard) for shard in self.shards(dataset)]

    def motion_shards(self, dataset: str, frame_format: str, motion: str) -> list[Path]:
        """Every shard of a motion kind."""
        return [self.layout.motion(dataset, frame_format, motion, shard) for shard in self.shards(dataset)]

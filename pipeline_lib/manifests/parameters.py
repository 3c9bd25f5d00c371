"""What decides a manifest, as its record has it: for the stage, and to compare a record with the plan."""

from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.digest import digest
from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.configuration.specification import ManifestSpecification
from pipeline_lib.manifests.annotation_files import named_sources, source_digests
from pipeline_lib.manifests.filters import filter_identity
from pipeline_lib.manifests.importers import read_listing
from pipeline_lib.manifests.schema import ListedVideo, Listing

VIDEOS = "videos"
"""The name of the folders' content as an input, where no annotation file lists the videos."""


def manifest_parameters(specification: ManifestSpecification) -> dict[str, Any]:
    """The parameters of a manifest's record. The filter's lists enter as digests, because it holds no path."""
    return specification.model_dump(
        mode="json", exclude={"dataset": {"annotations", "videos", "replacements", "filter"}}
    ) | {"filter": filter_identity(specification.dataset.filter)}


def listing_digest(videos: list[ListedVideo]) -> str:
    """Digest of which videos are listed, with their classes and lists."""

    def text(name: str) -> str:
        # A name on the disk need not be UTF-8.
        return name.encode("utf-8", "backslashreplace").decode()

    return digest([[text(video.id), list(map(text, video.labels)), list(video.subsets)] for video in videos])


def listed_inputs(listing: Listing) -> dict[str, str]:
    """Name → digest of each annotation file; of a folder of videos, of which videos it holds."""
    return source_digests(listing.sources) if listing.sources else {VIDEOS: listing_digest(listing.videos)}


def annotation_digests(dataset: Dataset) -> dict[str, str]:
    """The same as it would be now, without reading what the files say.

    Raises:
        UserError: a folder of videos cannot be listed.
    """
    if not FORMATS[dataset.format].lists and not any(dataset.annotations.values()):
        return listed_inputs(read_listing(dataset))
    paths: list[Path] = []
    for value in dataset.annotations.values():
        if value is not None:
            path = Path(value)
            paths += sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return source_digests(named_sources([path for path in paths if path.is_file()]))

"""How many shards a data set has, where its ``num_shards`` is not set.

The number follows from how many videos are listed when the manifest is first made. After that it stays: a video's shard
depends on it, so that another number would make all frames and all motion again.
"""

from contextlib import suppress

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.records import read_record
from pipeline_lib.configuration.data import MOST_SHARDS, Dataset
from pipeline_lib.configuration.presence import missing_data
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.filters import apply_filter
from pipeline_lib.manifests.importers import read_listing
from pipeline_lib.manifests.schema import ListedVideo

# A data set of S shards has at least this times S² videos: 6,400 in 64 shards, so that HMDB51, with 6,766, has 64.
_VIDEOS_OF_ONE = 6400 / 64**2


def shards_for(num_videos: int) -> int:
    """The shards of so many listed videos: 1 below 7, 2 below 25, and twice as many at each fourfold, up to 256.

    So both the number of jobs and the size of each grow with the data set, as its square root. On the complete lists
    these are UCF101 and HMDB51 in 64 shards, Something-Something v2, Kinetics-400 and Kinetics-600 in 256.

    Args:
        num_videos: listed, after the data set's filter.
    """
    number = 1
    while number < MOST_SHARDS and num_videos >= _VIDEOS_OF_ONE * (2 * number) ** 2:
        number *= 2
    return number


def listed_videos(dataset: Dataset) -> list[ListedVideo] | None:
    """The videos that a data set lists, after its filter; None if they are not known yet."""
    # What is absent or malformed is said when something needs it.
    if dataset.is_generated or missing_data("", dataset):
        return None
    try:
        return apply_filter(read_listing(dataset).videos, dataset.filter)
    except UserError:
        return None


def _num_listed(dataset: Dataset) -> int | None:
    if dataset.generated is not None:
        return dataset.generated.num_train + dataset.generated.num_validation
    videos = listed_videos(dataset)
    return None if videos is None else len(videos)


def recorded_shards(layout: Layout, name: str) -> int | None:
    """The shards of a data set's manifest; None without a manifest."""
    path = layout.summary(name)
    record = read_record(path) if path.is_file() else None
    number: int | None = (record or {}).get("parameters", {}).get("dataset", {}).get("num_shards")
    return number


def _remembered(layout: Layout, name: str) -> int | None:
    try:
        return int(layout.chosen_shards(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def with_shards(configuration: Configuration, layout: Layout) -> Configuration:
    """The configuration with a number of shards for each data set that has none and whose videos can be counted."""
    datasets = dict(configuration.datasets)
    for name, dataset in datasets.items():
        if dataset.num_shards is not None:
            continue
        number = recorded_shards(layout, name) or _remembered(layout, name)
        if number is None:
            listed = _num_listed(dataset)
            number = None if listed is None else shards_for(listed)
        datasets[name] = dataset.model_copy(update={"num_shards": number})
    return configuration.model_copy(update={"datasets": datasets})


def remember_shards(layout: Layout, name: str) -> None:
    """Note the shards of a manifest that exists, because Snakemake deletes a manifest before it is made again."""
    number = recorded_shards(layout, name)
    if number is not None and number != _remembered(layout, name):
        with suppress(OSError):
            write_bytes(layout.chosen_shards(name), f"{number}\n".encode())

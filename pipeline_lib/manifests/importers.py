"""The importer of each annotation format."""

import csv
from collections.abc import Callable

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.errors import UserError
from pipeline_lib.manifests import ava, kinetics, something, splits, sports1m, tables, tubes
from pipeline_lib.manifests.annotation_files import DOCUMENT
from pipeline_lib.manifests.schema import Listing

IMPORTERS: dict[str, Callable[[Dataset], Listing]] = {
    "kinetics": kinetics.read,
    "table": tables.read_table,
    "folder": tables.read_folder,
    "ucf101": splits.read_ucf101,
    "hmdb51": splits.read_hmdb51,
    "something_v1": something.read_v1,
    "something_v2": something.read_v2,
    "ava": ava.read,
    "jhmdb": tubes.read,
    "ucf101_24": tubes.read,
    "sports1m": sports1m.read,
}


def read_listing(dataset: Dataset) -> Listing:
    """Read a data set's annotations with the importer that its ``format`` names.

    Raises:
        UserError: a file is not in the format.
    """
    try:
        return IMPORTERS[dataset.format](dataset)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        files = ", ".join(str(path) for path in dataset.annotations.values() if path)
        raise UserError(
            f"{files or ', '.join(dataset.videos)} cannot be read as {dataset.format} ({error}); {DOCUMENT} shows the "
            "format."
        ) from error

"""From a data set's format to its importer."""

import csv
import importlib

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import DOCUMENT
from pipeline_lib.manifests.schema import Listing


def read_listing(dataset: Dataset) -> Listing:
    """Read a data set's annotations with the importer that its ``format`` names.

    Raises:
        UserError: a file is not in the format.
    """
    format = FORMATS[dataset.format]
    module, _, function = (format.importer or "").partition(":")
    read = getattr(importlib.import_module(module), function)
    try:
        listing: Listing = read(dataset)
        return listing
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        files = ", ".join(str(path) for path in dataset.annotations.values() if path)
        raise UserError(
            f"{files or ', '.join(dataset.videos)} cannot be read as {dataset.format} ({error}); {DOCUMENT} shows the "
            "format."
        ) from error

"""Which modules build a manifest: those of other formats are not among them."""

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.formats import FORMATS

# Only names: the fingerprint of a manifest covers the importer that it uses.
SHAPES_NO_ARTEFACT = True


def manifest_modules(dataset: Dataset) -> list[str]:
    """The stage, and the importer of the data set's format."""
    return ["pipeline_lib.manifests.build", FORMATS[dataset.format].module]

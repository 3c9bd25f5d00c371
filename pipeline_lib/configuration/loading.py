"""From files to a checked configuration."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline_lib.configuration.merging import read_sources
from pipeline_lib.configuration.messages import validation_message
from pipeline_lib.configuration.networks import NetworkKind
from pipeline_lib.configuration.references import check_references
from pipeline_lib.configuration.root import Configuration

CONFIGURATION_FILE = Path("config.yaml")


def load(
    base: Path = CONFIGURATION_FILE,
    overlays: Iterable[Path] = (),
    changes: Mapping[str, Any] | None = None,
    networks: Mapping[str, NetworkKind] | None = None,
) -> Configuration:
    """Read, merge and check config.yaml, the files of ``workflow`` beside it, overlays and ``--config`` values.

    Args:
        base: config.yaml; ``workflow/`` lies beside it.
        overlays: further files, later over earlier.
        changes: values that go over all files.
        networks: the catalogue by name; None leaves ``model`` unchecked.

    Raises:
        UserError: the user can fix it; the message has file, key, value and the nearest valid name.
    """
    sources = read_sources(base, overlays, changes)
    try:
        # JSON's rules fit: a list may become a tuple and 1 a float, but "3" is not a number.
        text = json.dumps(sources.values, default=str)
        configuration = Configuration.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise validation_message(error, Configuration, sources) from None
    check_references(configuration, sources, networks)
    return configuration

"""From files to a checked configuration."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline_lib.configuration import settings as command_line
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
    settings: Sequence[str] = (),
) -> Configuration:
    """Read, merge and check config.yaml, the files of ``workflow`` beside it, overlays and the command line's values.

    Args:
        base: config.yaml; ``workflow/`` lies beside it.
        overlays: further files, later over earlier.
        changes: values that go over all files, as Snakemake's ``--config`` gives them; its key ``set`` holds settings.
        networks: the catalogue by name; None leaves ``model`` unchecked.
        settings: ``KEY=VALUE`` with dotted keys, over everything.

    Raises:
        UserError: the user can fix it; the message has file, key, value and the nearest valid name.
    """
    plain, own = command_line.of_snakemake(changes)
    sources = read_sources(base, overlays, plain)
    command_line.retype(sources, Configuration)
    command_line.apply(sources, [*own, *settings], Configuration)
    try:
        # JSON's rules fit: a list may become a tuple and 1 a float, but "3" is not a number.
        text = json.dumps(sources.values, default=str)
        configuration = Configuration.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise validation_message(error, Configuration, sources) from None
    check_references(configuration, sources, networks)
    return configuration

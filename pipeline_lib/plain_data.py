"""JSON and YAML from files that anybody may have written: plain data of bounded depth and size, or a ``ValueError``."""

import json
from typing import Any

import yaml

SHAPES_NO_ARTEFACT = True

MAXIMUM_VALUES = 1_000_000
"""How many values a YAML file may stand for. Aliases that name aliases stand for millions in a few lines."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or is not UTF-8.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str, loader: Any = yaml.SafeLoader) -> Any:
    """The value of a YAML text.

    Args:
        text: of one document.
        loader: a safe one, that builds plain data only.

    Raises:
        yaml.YAMLError: it is no YAML.
        ValueError: it is nested too deeply or in itself, its aliases stand for too many values, or a key is no text.
    """
    try:
        value = yaml.load(text, Loader=loader)
        if _count(value) > MAXIMUM_VALUES:
            raise ValueError(f"its aliases stand for more than {MAXIMUM_VALUES:,} values")
        return value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except TypeError as error:
        # A list or a mapping as a key.
        raise ValueError(str(error)) from None


def _count(value: Any, known: dict[int, int] | None = None) -> int:
    """How many values a value holds, aliases counted as often as they are named."""
    known = {} if known is None else known
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        # A value that holds itself would never end; it counts as too much.
        known[id(value)] = MAXIMUM_VALUES + 1
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(item, known) for item in inner)
    return known[id(value)]

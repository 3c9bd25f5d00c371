"""Single values over all files: ``--set KEY=VALUE`` of the commands, ``--config set=KEY=VALUE`` of Snakemake.

Snakemake accepts no dot in a key of ``--config``, so the dotted key is the value of its key ``set``. Either way a value
gets the type that the schema has at its key.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from pipeline_lib.configuration.merging import COMMAND_LINE, Key, Sources
from pipeline_lib.configuration.messages import nearest, nodes_at
from pipeline_lib.errors import UserError

SET = "--set"
"""Where a value of ``--set`` came from, in messages."""
SET_KEY = "set"
"""The key of Snakemake's ``--config`` that holds settings."""
# Between two settings of one text: blanks, after which a key and `=` follow. A value may hold blanks itself.
_BETWEEN = re.compile(r"\s+(?=[A-Za-z_][\w.-]*=)")


def value_of(text: str) -> Any:
    """A value of the command line: JSON where it is JSON (``1e-3``, ``[8, 16]``), else YAML (``rgb``, ``{a: 1}``)."""
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


def split(setting: str) -> tuple[Key, str]:
    """The key's names and the value's text of ``KEY=VALUE``.

    Raises:
        UserError: it is no ``KEY=VALUE``.
    """
    key, sign, text = setting.partition("=")
    names = tuple(key.strip().split("."))
    if not sign or not all(names):
        raise UserError(
            f"{SET} {setting}: write KEY=VALUE, for example experiments.d3d_demo.objective.weight=10. "
            "docs/configuration.md has every key."
        )
    return names, text


def parsed_value(setting: str, text: str) -> Any:
    """``value_of`` a setting's text.

    Raises:
        UserError: it is neither JSON nor YAML.
    """
    try:
        return value_of(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise UserError(f"{SET} {setting}: the value is neither JSON nor YAML.") from None


def _wants_text_alone(model: type[BaseModel], key: Key, values: Any) -> bool:
    """Whether the schema has text at a key and nothing else."""
    kinds = {node.get("type") for node in nodes_at(model, key, values)}
    return kinds == {"string"} or kinds == {"string", "null"}


def _check_entry(sources: Sources, setting: str, names: Key, model: type[BaseModel]) -> None:
    """Refuse a key inside an entry that does not exist: it would be a new one, which lacks all others of its keys."""
    known = sources.values.get(names[0])
    is_by_name = not [key for node in nodes_at(model, names[:1], {}) for key in node.get("properties", {})]
    if len(names) > 2 and is_by_name and names[0] in model.model_fields:
        entries = known if isinstance(known, Mapping) else {}
        if names[1] not in entries:
            raise UserError(f"{SET} {setting}: there is no `{names[1]}` in {names[0]}. {nearest(names[1], entries)}")


def apply(sources: Sources, settings: Sequence[str], model: type[BaseModel]) -> None:
    """Lay settings over the merged values, later over earlier.

    Args:
        sources: changed in place.
        settings: ``experiments.d3d_demo.objective.weight=10`` …
        model: of the whole configuration; it says which values are text.

    Raises:
        UserError: a setting is malformed, or its key lies in an entry that does not exist.
    """
    for setting in settings:
        names, text = split(setting)
        _check_entry(sources, setting, names, model)
        value = text if _wants_text_alone(model, names, sources.values) else parsed_value(setting, text)
        nested: Any = value
        for name in reversed(names):
            nested = {name: nested}
        sources.merge(nested, SET)


def of_snakemake(changes: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """Snakemake's ``--config`` values as plain changes, and the settings in its key ``set``.

    Args:
        changes: as Snakemake parsed them; ``set`` holds one setting or several with blanks between.
    """
    others = dict(changes or {})
    held = others.pop(SET_KEY, None)
    texts = held if isinstance(held, list) else [] if held is None else [str(held)]
    return others, [setting for text in texts for setting in _BETWEEN.split(str(text).strip()) if setting]


def retype(sources: Sources, model: type[BaseModel]) -> None:
    """Give Snakemake's ``--config`` values the schema's types.

    Snakemake guesses a plain value's type (``output=2024`` becomes a number) and takes what braces hold as text.

    Args:
        sources: changed in place, where a value came from ``--config``.
        model: of the whole configuration.
    """
    for key in [key for key, origin in sources.origins.items() if origin == COMMAND_LINE]:
        holder: Any = sources.values
        for name in key[:-1]:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and key[-1] in holder:
            holder[key[-1]] = _retyped(holder[key[-1]], key, sources.values, model)


def _retyped(value: Any, key: Key, values: Any, model: type[BaseModel]) -> Any:
    if isinstance(value, list):
        return [_guessed(item) if _is_list_of_others(model, key, values) else item for item in value]
    text_alone = _wants_text_alone(model, key, values)
    if isinstance(value, int | float) and not isinstance(value, bool) and text_alone:
        return str(value)
    return _guessed(value) if isinstance(value, str) and not text_alone else value


def _guessed(value: Any) -> Any:
    try:
        return value_of(value) if isinstance(value, str) else value
    except (yaml.YAMLError, RecursionError, ValueError):
        return value


def _is_list_of_others(model: type[BaseModel], key: Key, values: Any) -> bool:
    """Whether a list at a key holds something else than text."""
    return any(kind != "string" for kind in _item_types(model, key, values))


def _item_types(model: type[BaseModel], key: Key, values: Any) -> Iterator[str | None]:
    for node in nodes_at(model, key, values):
        if isinstance(node.get("items"), Mapping):
            yield node["items"].get("type")
        for item in node.get("prefixItems", ()):
            yield item.get("type")

"""Messages about what pydantic found wrong: the file, the key, the value, and the nearest valid name."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline_lib.configuration.merging import Key, Sources
from pipeline_lib.errors import UserError

MAXIMUM_SHOWN = 12
Checked = TypeVar("Checked", bound=BaseModel)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A sentence that names the nearest valid name, or all of them when none is near."""
    names = sorted(valid)
    if not names:
        return "There is none to choose from."
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"Did you mean `{near[0]}`?"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"Valid: {shown}."


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _branches(node: Mapping[str, Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a schema node, references followed."""
    if "$ref" in node:
        return _branches(root["$defs"][node["$ref"].rsplit("/", 1)[1]], root)
    alternatives = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    return [branch for child in alternatives for branch in _branches(child, root)] if alternatives else [node]


def nodes_at(model: type[BaseModel], key: Sequence[str], data: Any) -> list[Mapping[str, Any]]:
    """What the schema allows at ``key``; of several alternatives, those that the data name; empty: no such key.

    Args:
        model: of the whole document.
        key: names from the outside to the inside.
        data: the whole document; of alternatives (``objective``), its constant field (``name: distillation``) chooses.
    """
    root = _schema(model)
    nodes: list[Mapping[str, Any]] = [root]
    value = data
    for name in key:
        nodes = _chosen(nodes, value)
        value = value.get(name) if isinstance(value, Mapping) else None
        following: list[Mapping[str, Any]] = []
        for node in nodes:
            if name in node.get("properties", {}):
                following += _branches(node["properties"][name], root)
            elif isinstance(node.get("additionalProperties"), Mapping):
                following += _branches(node["additionalProperties"], root)
            else:
                for pattern in node.get("patternProperties", {}).values():
                    following += _branches(pattern, root)
        nodes = following
    return _chosen(nodes, value)


def _chosen(nodes: list[Mapping[str, Any]], value: Any) -> list[Mapping[str, Any]]:
    """Drop alternatives whose constant field (`name: distillation`) a section's values contradict."""
    if len(nodes) < 2 or not isinstance(value, Mapping):
        return nodes
    chosen = [
        node
        for node in nodes
        if all(
            value.get(name, property.get("default", property.get("const"))) == property["const"]
            for name, property in node.get("properties", {}).items()
            if "const" in property
        )
    ]
    return chosen or nodes


def valid_keys(model: type[BaseModel], key: Sequence[str], data: Any) -> list[str]:
    """The valid keys inside the section at ``key``; of several alternatives, those of the one that the data name."""
    return sorted({name for node in nodes_at(model, key, data) for name in node.get("properties", {})})


def _key(location: Sequence[int | str], data: Any, is_of_section: bool) -> Key:
    """The location as the user wrote it: the tags of unions, which pydantic adds, are left out."""
    key: list[str] = []
    value = data
    for position, part in enumerate(location):
        name = str(part)
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif name in ("[key]", "experiment", "ensemble") or is_of_section or position < len(location) - 1:
            continue
        key.append(name)
    return tuple(key)


def problem_of(error: Mapping[str, Any], model: type[BaseModel], values: Any) -> tuple[Key, str]:
    """The key and what is wrong with it, of one error of a ``ValidationError`` of ``values``."""
    location = error["loc"]
    kind, value = error["type"], error["input"]
    # The message of a section's own validator already names its keys.
    is_of_section = kind == "value_error" and isinstance(value, Mapping)
    key = _key(location, values, is_of_section)
    context = error.get("ctx", {})
    if kind in ("union_tag_invalid", "literal_error", "enum"):
        expected = str(context.get("expected_tags", context.get("expected", "")))
        choices = [word.strip().strip("'\"") for word in expected.replace(" or ", ", ").split(",")]
        if kind == "union_tag_invalid":
            key, value = (*key, "name"), context.get("tag", value)
        problem = f"{value!r} is not valid. {nearest(str(value), choices)}"
        if len(choices) > 1 and "Did you mean" in problem:
            problem += f" Valid: {', '.join(choices)}."
    elif kind == "extra_forbidden":
        problem = f"unknown key. {nearest(key[-1], valid_keys(model, key[:-1], values))}"
    elif kind in ("missing", "union_tag_not_found"):
        key = (*key, "name") if kind == "union_tag_not_found" else key
        problem = "this key is required, and missing."
    elif kind == "string_pattern_mismatch" and "[key]" in location:
        problem = "a name consists of letters, digits and underscores."
    elif is_of_section:
        problem = f"{error['msg'].removeprefix('Value error, ')}."
    else:
        shown = repr(value)
        problem = f"the value {shown:.80} is not valid: {error['msg'].removeprefix('Value error, ')}."
    return key, problem


def parsed(model: type[Checked], values: Mapping[str, Any], where: str) -> Checked:
    """Plain values as a model; a value that only the type could refuse (a list for a tuple) is converted.

    Raises:
        UserError: an unknown key (the nearest valid one is named), a wrong type or a value out of its range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        key, problem = problem_of(error.errors(include_url=False)[0], model, values)  # type: ignore[arg-type]
        raise UserError(f"{'.'.join((where, *key))}: {problem}") from None


def describe(error: Mapping[str, Any], model: type[BaseModel], sources: Sources) -> str:
    """One line for one error of a ``ValidationError``: file, key, value, nearest valid name."""
    key, problem = problem_of(error, model, sources.values)
    return f"{sources.origin(key)}: {'.'.join(key)}: {problem}"


def one_message(problems: Sequence[str]) -> UserError:
    """All problems as one error; a single one stays one line."""
    if len(problems) == 1:
        return UserError(problems[0])
    shown = "\n".join(f"  {problem}" for problem in problems[:MAXIMUM_SHOWN])
    more = f"\n  … and {len(problems) - MAXIMUM_SHOWN} more" if len(problems) > MAXIMUM_SHOWN else ""
    return UserError(f"The configuration has {len(problems)} problems:\n{shown}{more}")


def validation_message(error: ValidationError, model: type[BaseModel], sources: Sources) -> UserError:
    """Everything that a validation found, as one error for the user."""
    return one_message([describe(item, model, sources) for item in error.errors(include_url=False)])  # type: ignore[arg-type]

"""The files of a configuration, merged, and which file each value came from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_yaml

Key = tuple[str, ...]

WORKFLOW_FOLDER = Path("workflow")
COMMAND_LINE = "--config"


class _UniqueKeyLoader(yaml.CSafeLoader):
    """YAML without silent repetition: a key that occurs twice in one mapping is an error."""


def _construct_unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} occurs twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)  # type: ignore[no-untyped-call]
        for key, value in node.value
    }


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_unique_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML file that holds a mapping; an empty file is an empty mapping.

    Raises:
        UserError: the file is missing, is not YAML, holds no mapping, or a key occurs twice.
    """
    try:
        # The loader is a safe one: it builds plain data only.
        content = parse_yaml(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such configuration file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the configuration file cannot be read: {error}.") from error
    except ValueError as error:
        raise UserError(f"{path}: this is not a configuration: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else f"{path}"
        raise UserError(f"{where}: this is not valid YAML: {getattr(error, 'problem', None) or error}.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: a mapping of keys to values is expected, not {content!r:.60}.")
    return {str(key): _with_text_keys(value) for key, value in content.items()}


def _with_text_keys(value: Any) -> Any:
    """Keys as text throughout: YAML reads ``400:`` as a number."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_text_keys(item) for item in value]
    return value


@dataclass
class Sources:
    """The merged values, and for each key the file that gave it last."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)
    workflow: set[str] = field(default_factory=set)
    """The files that the pipeline brings."""

    def merge(self, values: Mapping[str, Any], origin: str, at: Key = ()) -> None:
        """Add ``values``: mappings are merged key by key, everything else is replaced."""
        target = self.values
        for name in at:
            self.origins.setdefault(at, origin)
            target = target.setdefault(name, {})
        self._merge(target, values, origin, at)

    def _merge(self, target: dict[str, Any], values: Mapping[str, Any], origin: str, at: Key) -> None:
        for name, value in values.items():
            key = (*at, str(name))
            self.origins[key] = origin
            if isinstance(value, Mapping):
                below = target.get(name)
                if not isinstance(below, dict):
                    below = target[name] = {}
                self._merge(below, value, origin, key)
            else:
                target[name] = value

    def of_users(self, section: str) -> set[str]:
        """The names in a section to which a user's file gave a value."""
        given = (key for key, origin in self.origins.items() if origin not in self.workflow)
        return {key[1] for key in given if key[0] == section and len(key) > 1}

    def origin(self, key: Key) -> str:
        """The file that gave the value at ``key``, or the nearest key above it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        return next(iter(self.origins.values()), "config.yaml")


def _entries(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.glob("*.yaml") if not path.name.startswith((".", "_")))


def _add_entry(sources: Sources, section: str, name: str, value: Any, path: Path, origin: str) -> None:
    if name in sources.values.get(section, {}):
        first = sources.origin((section, name))
        raise UserError(f"{path}: {section}.{name} exists already, in {first}. Choose another name.")
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: {name} is {value!r:.60}; a mapping of keys to values is expected.")
    sources.merge(value, origin, (section, name))
    sources.origins[(section, name)] = origin
    sources.workflow.add(origin)


def read_sources(base: Path, overlays: Iterable[Path] = (), changes: Mapping[str, Any] | None = None) -> Sources:
    """Read and merge everything that configures the pipeline, later over earlier.

    1. ``workflow/recipes/*.yaml`` beside ``base``: one recipe each, named as its file;
       ``workflow/experiments/*.yaml``: experiments by name (a name that begins with ``_`` only holds YAML anchors);
       ``workflow/targets.yaml``: targets by name; ``workflow/tables/*.yaml``: the papers' tables by name;
    2. ``base`` (config.yaml);
    3. the overlays (``--configfile``), in their order;
    4. ``changes`` (``--config``).

    Raises:
        UserError: a file is missing or malformed, or two files of ``workflow`` define one name.
    """
    sources = Sources()
    workflow = base.parent / WORKFLOW_FOLDER
    for path in _entries(workflow / "recipes"):
        _add_entry(sources, "recipes", path.stem, read_yaml(path), path, str(path))
    for section, paths in (
        ("experiments", _entries(workflow / "experiments")),
        ("targets", [path for path in [workflow / "targets.yaml"] if path.is_file()]),
        ("tables", _entries(workflow / "tables")),
    ):
        for path in paths:
            for name, value in read_yaml(path).items():
                if not name.startswith("_"):
                    _add_entry(sources, section, name, value, path, str(path))
    for path in (base, *overlays):
        sources.merge(read_yaml(path), str(path))
    if changes:
        sources.merge(_with_text_keys(dict(changes)), COMMAND_LINE)
    return sources

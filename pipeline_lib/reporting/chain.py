"""The chain from a figure back to the annotation file: a walk over the artefacts' own records.

Every record names its inputs by their paths below the output root, with the digests of what was read. Each is compared
with what the path holds now, so that the chain also tells which inputs have changed since then. The walk knows no
stage.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.layout import GENERATED, METRICS, RETRIEVAL, SCORES, SUMMARY, WEIGHTS, Layout
from pipeline_lib.artefacts.records import Record, content_digest, contents_digest, read_header, read_record
from pipeline_lib.artefacts.sealing import DamageError
from pipeline_lib.artefacts.stage import read_sidecar
from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json

NUM_NAMED = 5
"""Files of a folder that a message names."""

# What a folder's chain begins with.
HEADS = (METRICS, RETRIEVAL, SCORES, WEIGHTS, SUMMARY, GENERATED)


@dataclass
class Link:
    """One artefact of the chain, or all of a folder that were read together.

    Attributes:
        name: its path below the output root; of several files with a ``*``, and how many there are.
        facts: lines about it.
        state: ``""``, or what is wrong (``changed since``, ``missing``).
        inputs: what it was made from.
        record: the artefact's own record, the first file's: parameters, inputs, versions, digests.
    """

    name: str
    facts: list[str] = field(default_factory=list)
    state: str = ""
    inputs: list["Link"] = field(default_factory=list)
    record: Record = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The chain as indented text; a branch that occurs again is shown once."""
        return self._lines(0, set())

    def _lines(self, depth: int, shown: set[tuple[str, ...]]) -> list[str]:
        indent = "  " * depth + ("└ " if depth else "")
        head = f"{indent}{self.name}" + (f"   !! {self.state}" if self.state else "")
        if (self.name, *self.facts) in shown:
            return [f"{head} (as above)"]
        shown.add((self.name, *self.facts))
        body = [" " * len(indent) + "  " + fact for fact in self.facts]
        return [head, *body, *(line for link in self.inputs for line in link._lines(depth + 1, shown))]

    def as_data(self) -> dict[str, Any]:
        """The chain as plain data."""
        return asdict(self)

    def problems(self) -> list[str]:
        """Every broken link, as text."""
        own = [f"{self.name}: {self.state}"] if self.state else []
        return own + [problem for link in self.inputs for problem in link.problems()]


def _versions(record: Record) -> str:
    versions = dict(record.get("versions", {}))
    if record.get("python"):
        versions["python"] = record["python"]
    return ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))


def _made(artefact: Path, record: Record) -> list[str]:
    """How an artefact was made, from its record, and where and when, from its sidecar."""
    facts = []
    if "digest" in record:
        code = str(record.get("code", "unknown"))
        facts.append(f"stage {record.get('stage')}, origin {record['digest'][:16]}, code {code[:16]}")
    chosen = record.get("parameters", {}).get("filter")
    if isinstance(chosen, dict) and any(value for name, value in chosen.items() if name != "seed"):
        facts.append(f"filter {json.dumps({name: value for name, value in chosen.items() if value}, sort_keys=True)}")
    if _versions(record):
        facts.append(f"made with {_versions(record)}")
    sidecar = read_sidecar(artefact)
    if sidecar:
        gpu = f" ({sidecar['gpu']})" if sidecar.get("gpu") else ""
        finished = str(sidecar.get("finished", "unknown")).replace("T", " ")[:19]
        seconds = float(sidecar.get("seconds", 0))
        facts.append(f"made on {sidecar.get('host', 'unknown')}{gpu}, {finished} UTC, in {seconds:.1f} s")
    return facts


def _counts(records: Sequence[Record]) -> list[str]:
    """``N videos, M rejected`` of one artefact or of several together."""
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.get("counts", {}))
    return [", ".join(f"{count} {name}" for name, count in total.items())] if total else []


def _own_facts(path: Path, record: Record) -> list[str]:
    """The figures of an evaluation, or what imported weights say of their origin."""
    if path.suffix == ".json":
        figures = parse_json(path.read_text(encoding="utf-8")).get("metrics")
        return [", ".join(f"{name} {value}" for name, value in figures.items())] if isinstance(figures, dict) else []
    if path.suffix == ".safetensors" and not record:
        return [f"{name} {value}" for name, value in sorted(read_header(path).items()) if isinstance(value, str)]
    return []


def _matching(place: Path) -> list[Path]:
    """The files of a path, or of a pattern whose last part has a ``*``."""
    return sorted(place.parent.glob(place.name)) if "*" in place.name else [place] if place.is_file() else []


def _names(keys: Sequence[str]) -> str:
    return ", ".join(Path(key).name for key in keys[:NUM_NAMED]) + (" …" if len(keys) > NUM_NAMED else "")


class Chain:
    """Builds the links of the artefacts below one output root."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._record = cache(lambda path: read_record(path) or {})
        self._content = cache(content_digest)
        self._links: dict[tuple[str, Path, int], Link] = {}

    def link(self, name: str, paths: Sequence[Path], state: str = "") -> Link:
        """The link of existing files, with everything behind them.

        Args:
            name: as shown, without the number of files.
            paths: one artefact, or those of one folder that were read together.
            state: what is wrong with them.
        """
        key = (name, paths[0], len(paths))
        if key not in self._links:
            try:
                self._links[key] = self._built(name, paths)
            except (UserError, OSError, ValueError) as error:
                what = error.what if isinstance(error, DamageError) else error
                self._links[key] = Link(name, state=f"damaged ({what})")
        found = self._links[key]
        return replace(found, state=state or found.state)

    def _built(self, name: str, paths: Sequence[Path]) -> Link:
        records = [self._record(path) for path in paths]
        first, record = paths[0], records[0]
        carrier = self.layout.carrier(first)
        facts = _own_facts(first, record) + _counts(records)
        if "*" in name:
            name = f"{name} ({len(paths)} files)"
        else:
            digest = self._content(first)
            facts.insert(0, f"content {digest}" if "content" in record else f"sha256 {digest}")
        if carrier is not None:
            follows = [self._input({self._name(carrier): ""}, {})]
            told = self._record(carrier).get("digest")
            other = "digest" in record and told is not None and record["digest"] != told
            return Link(name, facts, f"not of this {carrier.name}" if other else "", follows, record)
        facts += _made(first, record)
        kinds = Counter((str(one.get("code"))[:16], _versions(one)) for one in records)
        for (code, versions), count in list(kinds.items())[1:]:
            facts.append(f"but {count} of the files by code {code} with {versions or 'unknown versions'}")
        named = [{**one.get("inputs", {}), **one.get("beside", {})} for one in records]
        outside = {key: place for path in paths for key, place in read_sidecar(path).get("outside", {}).items()}
        return Link(name, facts, "", self._follow(name, named, outside), record)

    def _name(self, path: Path) -> str:
        return self.layout.key(path) or str(path)

    def _follow(self, name: str, named: Sequence[Mapping[str, str]], outside: Mapping[str, str]) -> list[Link]:
        """The links of the inputs that records name; the inputs of several files are one link per folder."""
        if "*" not in name:
            return [self._input({key: value}, outside) for key, value in named[0].items()]
        folders: dict[Path, dict[str, str]] = defaultdict(dict)
        for inputs in named:
            for key, value in inputs.items():
                folders[Path(outside.get(key, key)).parent][key] = value
        return [self._input(expected, outside) for expected in folders.values()]

    def _input(self, expected: Mapping[str, str], outside: Mapping[str, str]) -> Link:
        """An input, or all inputs of one folder, as they are now; an input from outside may be on another machine.

        Args:
            expected: key → digest of what was read, empty where none is known.
            outside: key → path, of inputs outside the output root.
        """
        files = {key: _matching(self.layout.root / outside.get(key, key)) for key in expected}
        there = sorted(path for found in files.values() for path in found)
        key, value = next(iter(expected.items()))
        name, several = outside.get(key, key), len(expected) > 1
        if several:
            name = Path(name).with_name(f"*{Path(name).suffix}").as_posix()
        if not there and not self.layout.owns(key):
            return Link(name, [f"sha256 {value}", "not on this machine"])
        changed = [key for key, found in files.items() if found and expected[key] not in ("", self._digest(key, found))]
        missing = [key for key, found in files.items() if not found]
        if several:
            states = [
                f"{word}: {_names(keys)}" for word, keys in (("changed since", changed), ("missing", missing)) if keys
            ]
        else:
            states = [f"changed since (it was {value[:16]})"] * bool(changed) + ["missing"] * bool(missing)
        return self.link(name, there, "; ".join(states)) if there else Link(name, state="missing")

    def _digest(self, key: str, paths: Sequence[Path]) -> str:
        """The content's digest; of a damaged file none, because ``link`` says what it is."""
        try:
            return contents_digest(paths) if "*" in key else self._content(paths[0])
        except UserError:
            return "unknown"


def chain_of(path: Path) -> Link:
    """The chain behind an artefact.

    Args:
        path: any artefact below an output root (metrics.json, scores.h5, weights.safetensors, a shard, a report, a
            file of a manifest), or the folder of one.

    Raises:
        UserError: the path is none of these.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder.")
    paths = [path.absolute()]
    if path.is_dir():
        heads = [path.absolute() / name for name in HEADS if (path / name).is_file()]
        paths = heads[:1] or sorted(path.absolute().glob("*.h5"))
    layout = Layout.above(paths[0]) if paths else None
    if layout is None:
        raise UserError(
            f"{path} is not one artefact of an output root: give a metrics.json, a scores.h5, a weights.safetensors, a "
            "shard, a report or a manifest."
        )
    chain = Chain(layout)
    name = chain._name(paths[0] if len(paths) == 1 else paths[0].with_name("*.h5"))
    return chain.link(name, paths)

"""Whether what exists is what the configuration asks for: by the records in the artefacts, not by files' times.

Snakemake decides by times, and by a memory of parameters and code in ``.snakemake`` of one working folder. Output that
was copied to another clone has neither. So each artefact's record (its parameters, code and the contents that it was
made from) is compared with the plan when a workflow starts, and the times are set to what the comparison says: an
artefact that differs gets an old time, so that Snakemake makes it again; one that agrees is never older than what it
was made from, so that Snakemake leaves it alone. Nothing else is changed, and nothing is deleted.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.atomic import write_json
from pipeline_lib.artefacts.digest import digest
from pipeline_lib.artefacts.fingerprint import code_fingerprint
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.records import Record, content_digest, read_record
from pipeline_lib.artefacts.sealing import DamageError
from pipeline_lib.configuration.experiments import Experiment
from pipeline_lib.configuration.presence import missing_data
from pipeline_lib.evaluation.parameters import judged_parameters
from pipeline_lib.manifests.parameters import annotation_digests, manifest_parameters
from pipeline_lib.plain_data import parse_json
from pipeline_lib.planning import code
from pipeline_lib.planning.plan import SUBSETS, Plan
from pipeline_lib.planning.run import Run, with_sources
from pipeline_lib.planning.sharding import remember_shards

FLAGS = ("videos", "manifest")
"""What may have no input but a flag."""

OLD = 1.0
"""The time, seconds since 1970, of an artefact that has to be made again."""


@dataclass(frozen=True)
class Expected:
    """An artefact as the plan wants it.

    Attributes:
        carrier: the file with the record.
        others: files that are made with it.
        modules: of its stage.
        parameters: those of its record that the plan knows, as plain data.
        reads: the files that its rule names as inputs.
        flag: an input of a rule that reads no artefact; its time says that the rule has to run.
        outside: name → digest of inputs that are no artefacts, as they are now; None if they are not compared.
    """

    carrier: Path
    others: tuple[Path, ...]
    modules: tuple[str, ...]
    parameters: Mapping[str, Any]
    reads: tuple[Path, ...] = ()
    flag: Path | None = None
    outside: Mapping[str, str] | None = None

    @property
    def files(self) -> list[Path]:
        """What its rule makes."""
        return [path for path in (self.carrier, *self.others) if path.is_file()]


@dataclass(frozen=True)
class Stale:
    """An artefact that is made again, and why."""

    artefact: Path
    reason: str


def _shards_in(folder: Path, suffix: str) -> list[str]:
    """Names of the shards that lie in a folder."""
    names = (path.name for path in folder.glob(f"*{suffix}"))
    return sorted(name.removesuffix(suffix) for name in names if not name.startswith("."))


class Expectations:
    """What the plan wants of every artefact that exists, each after those that it is made from.

    Args:
        plan: of the configuration.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.layout, self.configuration = plan, plan.layout, plan.configuration

    def __iter__(self) -> Iterator[Expected]:
        yield from self._generated()
        yield from self._manifests()
        yield from self._frames()
        yield from self._motion()
        runs = with_sources(self._runs())
        for run in reversed(runs):
            yield from self._run(run)
        for name in self.plan.report_names:
            path = self.layout.report(name)
            if path.is_file():
                specification = self.plan.report(name).model_dump(mode="json")
                yield Expected(path, (), code.REPORT, specification, tuple(self.plan.report_inputs(name)))

    def _generated(self) -> Iterator[Expected]:
        for name in self.plan.generated_names:
            path = self.layout.generated(name)
            if path.is_file():
                lists = tuple(self.layout.media_list(name, subset) for subset in SUBSETS)
                generated = self.configuration.datasets[name].generated
                assert generated is not None
                parameters = generated.model_dump(mode="json")
                yield Expected(path, lists, code.GENERATE, parameters, (), self.layout.flag("videos", name))

    def _manifests(self) -> Iterator[Expected]:
        for name in self.configuration.datasets:
            path, dataset = self.layout.summary(name), self.plan.dataset(name)
            if not path.is_file() or missing_data(name, dataset):
                continue
            yield Expected(
                path,
                (self.layout.manifest(name),),
                tuple(self.plan.manifest_modules(name)),
                manifest_parameters(self.plan.manifest(name)),
                tuple(Path(file) for file in self.plan.annotation_files(name)),
                self.layout.flag("manifest", name),
                annotation_digests(dataset),
            )

    def _frames(self) -> Iterator[Expected]:
        for name in self.configuration.datasets:
            for frame_format in self.configuration.frame_formats:
                parameters = self.plan.frames(name, frame_format).model_dump(mode="json")
                for shard in _shards_in(self.layout.frames(name, frame_format, "x").parent, ".h5"):
                    path, listed = self.layout.frames(name, frame_format, shard), self.layout.shard_list(name, shard)
                    yield Expected(path, (), code.FRAMES, parameters, (listed,))

    def _motion(self) -> Iterator[Expected]:
        for name in self.configuration.datasets:
            for frame_format in self.configuration.frame_formats:
                for motion, kind in self.configuration.motions.items():
                    folder = self.layout.motion(name, frame_format, motion, "x").parent
                    for shard in _shards_in(folder, ".h5"):
                        path = self.layout.motion(name, frame_format, motion, shard)
                        reads = [self.layout.frames(name, frame_format, shard)]
                        if self.plan.reads_flow_files(motion):
                            reads.append(self.layout.shard_list(name, shard))
                        parameters = {"motion": kind.model_dump(mode="json")}
                        yield Expected(path, (), tuple(code.motion_modules(kind)), parameters, tuple(reads))
                        strength = self.layout.strength(name, frame_format, motion, shard)
                        if strength.is_file():
                            yield Expected(strength, (), code.STRENGTH, {}, (path,))

    def _runs(self) -> list[Run]:
        """The runs of which anything exists."""
        return [
            run
            for name in self.configuration.experiments
            if self.layout.folder_of(name).is_dir() or self.layout.evaluations_of(name).is_dir()
            for run in self.plan.runs(name)
        ]

    def _run(self, run: Run) -> Iterator[Expected]:
        if isinstance(run.entry, Experiment):
            if run.weights.is_file():
                specification = run.training
                parameters = specification.model_dump(mode="json")
                modules = tuple(code.training_modules(specification))
                reads = (self.layout.summary(run.dataset), *run.training_shards, *run.source_weights)
                yield Expected(run.weights, (), modules, parameters, reads)
            network = run.trained.model.name
            modules = tuple(code.evaluation_modules(network, run.task))
            reads = (self.layout.summary(run.dataset), *run.evaluation_shards, run.weights)
            asked = run.trained.retrieval
            if asked is not None and self.layout.retrieval(*run.place, asked).is_file():
                own = tuple(code.retrieval_modules(network, run.task))
                path = self.layout.retrieval(*run.place, asked)
                yield Expected(path, (), own, judged_parameters(run.evaluation(asked)), reads)
        else:
            modules = tuple(code.ensemble_modules(run.task))
        for protocol in run.entry.protocols:
            scores = run.scores(protocol)
            if not scores.is_file():
                continue
            if isinstance(run.entry, Experiment):
                parameters = judged_parameters(run.evaluation(protocol))
            else:
                parameters = run.ensemble(protocol).model_dump(mode="json", include={"task", "members", "protocol"})
                reads = tuple(member.scores(protocol) for member in run.members)
            yield Expected(scores, (self.layout.metrics(*run.place, protocol),), modules, parameters, reads)


class Comparison:
    """Compares artefacts with the plan; the content of each file is asked for once.

    Args:
        layout: of the output root.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.accepted = _read_accepted(layout.accepted())
        self._contents: dict[Path, str | None] = {}
        self._fingerprints: dict[tuple[str, ...], str] = {}

    def _content(self, path: Path) -> str | None:
        if path not in self._contents:
            try:
                self._contents[path] = content_digest(path)
            except (OSError, DamageError):
                # What is damaged is made first, like what is missing.
                self._contents[path] = None
        return self._contents[path]

    def _fingerprint(self, modules: tuple[str, ...]) -> str:
        if modules not in self._fingerprints:
            self._fingerprints[modules] = code_fingerprint(modules)
        return self._fingerprints[modules]

    def difference(self, expected: Expected) -> str | None:
        """Why an artefact is not what the plan wants, or None."""
        record = read_record(expected.carrier)
        if record is None:
            return "its record is damaged, or of an earlier version"
        if "parameters" not in record:
            return None
        found: str | None
        if record.get("code") != self._fingerprint(expected.modules):
            found = "the code of its stage has changed"
        else:
            found = next(differences(record["parameters"], expected.parameters), None)
            found = found or self._changed_input(expected, record)
        key = self.layout.key(expected.carrier) or ""
        return None if found is None or self.accepted.get(key) == self.identity(expected, record) else found

    def identity(self, expected: Expected, record: Record) -> str:
        """Digest of all that an artefact is compared with, and of what it is: what a user accepts as equivalent."""
        inputs = {key: self._now(key, expected.reads) for key in record.get("inputs", {}) if self.layout.owns(key)}
        now = [self._fingerprint(expected.modules), dict(expected.parameters), inputs, dict(expected.outside or {})]
        return digest([now, record.get("digest")])

    def _changed_input(self, expected: Expected, record: Record) -> str | None:
        for key, was in record.get("inputs", {}).items():
            if not self.layout.owns(key):
                if expected.outside is not None and expected.outside.get(key, was) != was:
                    return f"{key} has changed"
            elif self._now(key, expected.reads) not in (None, was):
                return f"{key} has changed"
        return None

    def _now(self, key: str, reads: Iterable[Path]) -> str | None:
        """Digest of an input as it is; None if a part of it is missing, which is then made first."""
        if "*" not in key:
            return self._content(self.layout.root / key)
        # Only the shards that are read: others may be left over from a larger number of shards.
        paths = [path for path in reads if fnmatch(self.layout.key(path) or "", key)]
        contents = {path.name: self._content(path) for path in paths}
        return None if None in contents.values() or not contents else digest(contents)


def differences(was: Any, now: Any, key: str = "") -> Iterator[str]:
    """Values that the plan knows and a record has otherwise: ``objective.weight was 100.0, is 1.0``."""
    if isinstance(now, Mapping) and isinstance(was, Mapping):
        for name, value in now.items():
            yield from differences(was.get(name), value, f"{key}.{name}" if key else str(name))
    elif was != now:
        yield f"{key} was {_short(was)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _read_accepted(path: Path) -> dict[str, str]:
    """What a user has said to be equivalent to what the configuration asks for: key of an artefact → identity."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def reconcile(plan: Plan, accept: bool = False) -> list[Stale]:
    """Set the times of what exists to what its record says, and return what has to be made again.

    An artefact that has to be made again does not count for those behind it: Snakemake looks at these when it is made.

    Args:
        plan: of the configuration.
        accept: the user says that all that exists is equivalent to what the configuration asks for
            (``snakemake --touch``). It is remembered beside the artefacts until something changes again.

    Raises:
        UserError: a part of the configuration cannot be planned.
    """
    comparison = Comparison(plan.layout)
    found = []
    for name in plan.configuration.datasets:
        remember_shards(plan.layout, name)
        for what in FLAGS:
            _set_flag(plan.layout.flag(what, name))
    for expected in Expectations(plan):
        reason = comparison.difference(expected)
        record = read_record(expected.carrier)
        if reason is not None and accept and record is not None:
            comparison.accepted[plan.layout.key(expected.carrier) or ""] = comparison.identity(expected, record)
        elif reason is not None:
            found.append(Stale(expected.carrier, reason))
            if expected.flag is not None:
                _set_time(expected.flag, None)
            for path in expected.files:
                _set_time(path, OLD)
        elif record is not None:
            _not_older_than(expected.files, expected.reads)
    if accept:
        with suppress(OSError):
            write_json(plan.layout.accepted(), dict(sorted(comparison.accepted.items())))
    return found


def _set_flag(flag: Path) -> None:
    with suppress(OSError):
        if not flag.exists():
            flag.parent.mkdir(parents=True, exist_ok=True)
            flag.touch()
        _set_time(flag, OLD)


def _set_time(path: Path, seconds: float | None) -> None:
    """Set a file's time (None: now). On a read-only disk nothing can be made again either."""
    with suppress(OSError):
        os.utime(path, None if seconds is None else (seconds, seconds))


def _not_older_than(files: Sequence[Path], reads: Iterable[Path]) -> None:
    times = [path.stat().st_mtime_ns for path in reads if path.exists()]
    newest = max(times, default=0)
    for path in files:
        if path.stat().st_mtime_ns < newest:
            with suppress(OSError):
                os.utime(path, ns=(newest, newest))


def described(stale: Sequence[Stale], layout: Layout, most: int = 12) -> str:
    """What is made again and why, equal reasons of one folder together; empty if nothing is."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in stale:
        key = layout.key(one.artefact) or one.artefact.name
        folder = key.rpartition("/")[0]
        place = folder if one.artefact.suffix in (".h5", ".parquet") and "evaluations" not in key else key
        groups.setdefault((place, one.reason), []).append(key)
    lines = [
        f"  {place}{f' ({len(keys)} shards)' if len(keys) > 1 else ''}: {reason}"
        for (place, reason), keys in groups.items()
    ]
    if len(lines) > most:
        lines = [*lines[:most], f"  … and {len(lines) - most} more"]
    head = "Made again where a target needs it, because it is not what the configuration asks for:"
    return "\n".join([head, *lines]) if lines else ""

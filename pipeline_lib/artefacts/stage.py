"""The frame of every stage: one writer at a time, no work twice, a record in the artefact, a sidecar beside it."""

import datetime
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeAlias

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.locking import artefact_lock
from pipeline_lib.artefacts.records import Record, make_record, read_record
from pipeline_lib.artefacts.sealing import read_sealed_json, write_sealed_json
from pipeline_lib.caches import user_name
from pipeline_lib.errors import UserError

SHAPES_NO_ARTEFACT = True

Inputs: TypeAlias = Mapping[Path, str] | Mapping[str, str] | Mapping[Path | str, str]
"""Paths on this machine, or the keys that records name them by → content digests."""


def sidecar_path(artefact: Path) -> Path:
    """Where an artefact's sidecar lies: ``{artefact}.run.json``."""
    return artefact.with_name(artefact.name + ".run.json")


def read_sidecar(artefact: Path) -> dict[str, Any]:
    """The sidecar of an artefact; empty if there is none, or if it is damaged, because no stage needs it."""
    try:
        return read_sealed_json(sidecar_path(artefact))
    except UserError:
        return {}


class Stage:
    """One run of a stage.

    Its steps, in order::

        with Stage("extract_frames", MODULES, output) as stage:
            if stage.is_finished(parameters, inputs, versions):
                return
            ...  # make the artefact, with stage.record in it
            stage.finish(figures)

    Entering waits for another process that makes the same artefact (``artefact_lock``).

    Args:
        name: of the stage, as in the record.
        modules: the stage's modules; the fingerprint covers them and what they import.
        output: the artefact that carries the record.
        others: other files that the stage makes and without which it is not finished.
        root: the output root; None finds it above the output.
        exclusive: hold the lock. In a distributed training only the first process holds it.

    Attributes:
        record: what determines the artefact's bytes, after ``is_finished``.
    """

    record: Record

    def __init__(
        self,
        name: str,
        modules: Iterable[str],
        output: Path,
        others: Iterable[Path] = (),
        root: Path | None = None,
        exclusive: bool = True,
    ) -> None:
        self.name, self.modules, self.output, self.others = name, tuple(modules), output, tuple(others)
        self._exclusive = exclusive
        self._layout = Layout.above(output) if root is None else Layout(root)
        self._outside: dict[str, str] = {}
        self._held = ExitStack()

    def __enter__(self) -> Self:
        if self._exclusive:
            self._held.enter_context(artefact_lock(self.output))
        self._start = time.time()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def key(self, path: Path, name: str | None = None) -> str:
        """How the record names an input: by its path below the output root, or, outside of it, by its name alone.

        The path of a file outside goes to the sidecar, because an artefact holds no path of this machine.

        Args:
            path: the input on this machine.
            name: of an input that lies below no output root; by default its file's name.
        """
        inside = None if self._layout is None else self._layout.key(path)
        if inside is not None:
            return inside
        other = Layout.above(path)
        key = name or (other and other.key(path)) or path.name
        self._outside[key] = str(path.absolute())
        return key

    def _keyed(self, inputs: Inputs) -> dict[str, str]:
        return {name if isinstance(name, str) else self.key(name): value for name, value in inputs.items()}

    def describe(
        self,
        parameters: Mapping[str, Any],
        inputs: Inputs,
        versions: Mapping[str, str],
        beside: Inputs | None = None,
    ) -> Record:
        """Say what determines the artefact (``make_record``); an input is given by its path here or by its key."""
        self.record = make_record(
            self.name,
            self.modules,
            parameters,
            self._keyed(inputs),
            versions,
            self._keyed(beside or {}),
        )
        return self.record

    def is_finished(
        self,
        parameters: Mapping[str, Any],
        inputs: Inputs,
        versions: Mapping[str, str],
        beside: Inputs | None = None,
    ) -> bool:
        """Describe the artefact, and say whether it exists already with the same origin."""
        wanted = self.describe(parameters, inputs, versions, beside)["digest"]
        found = read_record(self.output) if all(path.is_file() for path in (self.output, *self.others)) else None
        finished = found is not None and found.get("digest") == wanted
        if finished:
            print(f"{self.output} is finished", file=sys.stderr)
        elif self._exclusive:
            self.begin()
        return finished

    def begin(self) -> None:
        """Remove the earlier sidecar: a kill before ``finish`` must not leave it beside files of this run."""
        sidecar_path(self.output).unlink(missing_ok=True)

    def finish(self, figures: Mapping[str, Any] | None = None, made: Iterable[Path] = ()) -> None:
        """Write host, user, times and ``figures`` (measurements of this run) beside the artefact; no rule reads it.

        It also holds the SHA-256 of the files as they were written, for ``python -m pipeline_lib verify``.

        Args:
            figures: rates, counts, what bound the stage.
            made: files that the stage has made beside ``output`` and ``others``.
        """
        folder = self.output.parent
        files = dict.fromkeys((self.output, *self.others, *made))
        end = time.time()
        torch = sys.modules.get("torch")
        gpu = {"gpu": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_available() else {}
        write_sealed_json(
            sidecar_path(self.output),
            {
                "files": {path.relative_to(folder).as_posix(): file_digest(path) for path in files},
                "host": socket.gethostname(),
                **gpu,
                "user": user_name(),
                "command": sys.argv,
                "started": datetime.datetime.fromtimestamp(self._start, datetime.UTC).isoformat(),
                "finished": datetime.datetime.fromtimestamp(end, datetime.UTC).isoformat(),
                "seconds": round(end - self._start, 3),
                "figures": dict(figures or {}),
                "outside": self._outside,
            },
        )

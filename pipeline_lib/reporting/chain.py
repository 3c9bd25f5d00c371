"""The chain from a figure back to the annotation file, read from the artefacts' own records.

Every artefact names the digests of what it was made from. Each is held against what lies there now, so that the chain
also tells where an input has changed since.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.provenance import sidecar_path
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.results import read_metrics
from pipeline_lib.evaluation.scores import read_scores
from pipeline_lib.media.frames_stage import read_shard_list, videos_digest
from pipeline_lib.media.shards import Shard
from pipeline_lib.reporting.weights_header import read_header

ROOMS = ("manifests", "frames", "motion", "experiments", "evaluations")
"""Folders below the output root whose artefacts carry a record."""


@dataclass
class Link:
    """One artefact of the chain.

    Attributes:
        name: what it is, with its path below the output root.
        facts: lines about it.
        state: ``""``, or what does not hold (``changed since``, ``missing``).
        inputs: what it was made from.
        record: the artefact's own record: parameters, inputs, versions, digests.
    """

    name: str
    facts: list[str] = field(default_factory=list)
    state: str = ""
    inputs: list["Link"] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The chain as indented text; a branch that comes again is shown once."""
        return self._lines(0, set())

    def _lines(self, depth: int, shown: set[str]) -> list[str]:
        indent = "  " * depth + ("└ " if depth else "")
        head = f"{indent}{self.name}" + (f"   !! {self.state}" if self.state else "")
        if self.name in shown:
            return [f"{head} (as above)"]
        shown.add(self.name)
        body = [" " * len(indent) + "  " + fact for fact in self.facts]
        return [head, *body, *(line for link in self.inputs for line in link._lines(depth + 1, shown))]

    def as_data(self) -> dict[str, Any]:
        """The chain as plain data."""
        return {
            "name": self.name,
            "facts": self.facts,
            "state": self.state,
            "record": self.record,
            "inputs": [link.as_data() for link in self.inputs],
        }

    def problems(self) -> list[str]:
        """Every broken link, as text."""
        own = [f"{self.name}: {self.state}"] if self.state else []
        return own + [problem for link in self.inputs for problem in link.problems()]


def output_root(path: Path) -> tuple[Path, str]:
    """The output root above an artefact, and the room that it lies in.

    Raises:
        UserError: the path lies in none of an output root's folders.
    """
    parts = path.absolute().parts
    for position in range(len(parts) - 1, 0, -1):
        if parts[position] in ROOMS and (Path(*parts[:position]) / parts[position]).is_dir():
            return Path(*parts[:position]), parts[position]
    raise UserError(
        f"{path} lies below none of {', '.join(ROOMS)}: give a metrics.json, a scores.h5, a weights.safetensors, a "
        "shard or a manifest of an output root."
    )


def _versions(record: dict[str, Any]) -> str:
    versions = dict(record.get("versions", {}))
    if record.get("python"):
        versions["python"] = record["python"]
    return ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))


def _made_by(record: dict[str, Any]) -> list[str]:
    """What an artefact's record says of how it was made."""
    facts = [f"origin {str(record.get('digest', 'unknown'))[:16]}, code {str(record.get('code', 'unknown'))[:16]}"]
    if _versions(record):
        facts.append(f"made with {_versions(record)}")
    return facts


def _sidecar(artefact: Path) -> dict[str, Any]:
    """The sidecar of an artefact; empty where it was not copied along."""
    try:
        content = json.loads(sidecar_path(artefact).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _ran(artefact: Path) -> list[str]:
    """Where and when an artefact was made, and how long that took, from its sidecar."""
    sidecar = _sidecar(artefact)
    if not sidecar:
        return []
    gpu = f" ({sidecar['gpu']})" if sidecar.get("gpu") else ""
    finished = str(sidecar.get("finished", "unknown")).replace("T", " ")[:19]
    return [f"made on {sidecar.get('host', 'unknown')}{gpu}, {finished} UTC, in {sidecar.get('seconds', 0):.1f} s"]


def _listed_videos(shard_list: Path) -> str:
    """Digest of what a manifest's list gives to a shard; empty where the list cannot be read."""
    try:
        return videos_digest(read_shard_list(shard_list))
    except (UserError, KeyError):
        return ""


class Chain:
    """Builds the links of the artefacts below one output root.

    Args:
        root: output root.
    """

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)

    def _relative(self, path: Path) -> str:
        return str(path.absolute().relative_to(self.layout.root.absolute()))

    def _guarded(self, name: str, path: Path, build: Callable[[Path], Link]) -> Link:
        """A link of an input; a missing or unreadable one ends its branch instead of the command."""
        if not path.exists():
            return Link(f"{name} {self._relative(path)}", state="missing")
        try:
            return build(path)
        except UserError as error:
            return Link(f"{name} {self._relative(path)}", state=str(error))

    def manifest(self, dataset: str, expected: str = "") -> Link:
        """A manifest and the annotation files that it was built from."""
        path = self.layout.summary(dataset)

        def build(path: Path) -> Link:
            try:
                summary = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"damaged ({error})") from error
            status = ", ".join(f"{count} {name}" for name, count in summary.get("status", {}).items())
            record = summary.get("provenance", {})
            link = Link(
                f"manifest {self._relative(path.parent)}",
                [f"digest {summary.get('digest', '')}; {status or 'no counts'}", *_made_by(record), *_ran(path)],
                record=record,
            )
            chosen = {key: value for key, value in (summary.get("filter") or {}).items() if value}
            if set(chosen) - {"seed"}:
                link.facts.insert(1, f"filter {json.dumps(chosen, sort_keys=True)}")
            if expected and summary.get("digest") != expected:
                link.state = f"changed since (it was {expected[:16]})"
            places = _sidecar(path).get("figures", {}).get("annotations", {})
            for name, value in sorted(summary.get("annotations", {}).items()):
                link.inputs.append(self._annotation(dataset, str(name), str(value), places.get(name)))
            return link

        return self._guarded("manifest", path, build)

    def _annotation(self, dataset: str, name: str, expected: str, place: str | None) -> Link:
        """An annotation file, by its name and digest; where it lay stands in the manifest's sidecar alone."""
        link = Link(f"annotations {name} of {dataset}", [f"sha256 {expected}"])
        path = Path(place) if place else self.layout.root / "media" / dataset / name
        if place:
            link.facts.append(str(path))
        if path.is_file():
            if file_digest(path) != expected:
                link.state = "changed since"
        elif place:
            link.facts[-1] += " (not on this machine)"
        return link

    def shard_folder(self, kind: str, folder: Path, dataset: str, manifest: str = "") -> Link:
        """All shards of one kind, each held against what it was made from.

        Args:
            kind: ``frames`` or ``motion``.
            folder: of the shards.
            dataset: whose.
            manifest: digest of the manifest that the follower names; empty where it names none.
        """

        def build(folder: Path) -> Link:
            paths = sorted(folder.glob("*.h5"))
            if not paths:
                return Link(f"{kind} {self._relative(folder)}", state="no shards left")
            records: list[dict[str, Any]] = []
            num_videos = num_rejected = 0
            outdated = []
            for path in paths:
                shard = Shard(path)
                records.append(shard.provenance)
                num_videos += shard.num_videos
                num_rejected += len(shard.rejected)
                shard.close()
                if self._is_outdated(kind, path, records[-1], dataset):
                    outdated.append(path.stem)
            first = records[0]
            link = Link(
                f"{kind} {self._relative(folder)} ({len(paths)} shards)",
                [f"{num_videos} videos, {num_rejected} rejected here", *_made_by(first), *_ran(paths[0])],
                record=first,
            )
            others = Counter((str(record.get("code"))[:16], _versions(record)) for record in records)
            for (code, versions), count in list(others.items())[1:]:
                link.facts.append(f"but {count} of the shards by code {code} with {versions or 'unknown versions'}")
            if outdated:
                shown = ", ".join(outdated[:5]) + (" …" if len(outdated) > 5 else "")
                source = "list in the manifest" if kind == "frames" else "frames"
                link.state = f"the {source} changed since for shard {shown}"
            if kind == "motion":
                link.inputs.append(self.shard_folder("frames", self._frames_beside(folder), dataset, manifest))
            else:
                link.inputs.append(self.manifest(dataset, manifest))
            return link

        return self._guarded(kind, folder, build)

    def _is_outdated(self, kind: str, path: Path, record: dict[str, Any], dataset: str) -> bool:
        """Whether a shard's input is there and is not what the shard's record names."""
        inputs = record.get("inputs", {})
        if kind == "frames":
            shard_list = self.layout.shard_lists(dataset) / f"{path.stem}.json"
            return "videos" in inputs and shard_list.exists() and inputs["videos"] != _listed_videos(shard_list)
        frames = self._frames_beside(path.parent) / path.name
        if "frames" not in inputs or not frames.exists():
            return False
        shard = Shard(frames)
        found = shard.provenance.get("digest")
        shard.close()
        return bool(inputs["frames"] != found)

    def _frames_beside(self, motion_folder: Path) -> Path:
        """Frames folder of a motion folder ``motion/{dataset}/{frame_format}/{motion}``."""
        return self.layout.root / "frames" / motion_folder.parent.parent.name / motion_folder.parent.name

    def weights(self, path: Path, expected: str = "") -> Link:
        """A training run: its shards, its teacher and what it started from."""

        def build(path: Path) -> Link:
            metadata = read_header(path)
            record, specification = metadata.get("provenance", {}), metadata.get("specification", {})
            manifest = record.get("manifest", {})
            link = Link(
                f"weights {self._relative(path)}",
                [f"sha256 {file_digest(path)}", *_made_by(record), *_ran(path)],
                record=record,
            )
            if expected and file_digest(path) != expected:
                link.state = f"changed since (it was {expected[:16]})"
            link.inputs += self._clips(specification, str(manifest.get("digest", "")))
            teacher = specification.get("teacher")
            inputs = record.get("inputs", {})
            if teacher:
                place = (teacher["experiment"], str(teacher["split"]), str(teacher["seed"]))
                link.inputs.append(self.weights(self.layout.weights(*place), inputs.get("teacher", "")))
            start = specification.get("initialise_from")
            if start:
                if start.startswith("imported/"):
                    path = self.layout.imported(start.removeprefix("imported/"))
                    link.inputs.append(self._imported(path, inputs.get("initialise_from", "")))
                else:
                    source = self.layout.root / "experiments" / start / "weights.safetensors"
                    link.inputs.append(self.weights(source, inputs.get("initialise_from", "")))
            return link

        return self._guarded("weights", path, build)

    def _imported(self, path: Path, expected: str) -> Link:
        """Weights of somebody else: their chain ends here, with what their file says of itself."""

        def build(path: Path) -> Link:
            found = file_digest(path)
            metadata = read_header(path)
            facts = [f"{key} {value}" for key, value in sorted(metadata.items()) if isinstance(value, str)]
            state = f"changed since (it was {expected[:16]})" if expected and found != expected else ""
            return Link(f"imported weights {self._relative(path)}", [f"sha256 {found}", *facts], state, record=metadata)

        return self._guarded("imported weights", path, build)

    def _clips(self, specification: dict[str, Any], manifest: str) -> list[Link]:
        """The shards that a training or an evaluation of this specification read."""
        dataset, frame_format = specification.get("dataset"), specification.get("frame_format")
        if not dataset or not frame_format:
            return []
        if specification.get("modality") == "flow" and specification.get("motion"):
            folder = self.layout.motion(dataset, frame_format, specification["motion"], "000").parent
            return [self.shard_folder("motion", folder, dataset, manifest)]
        folder = self.layout.frames(dataset, frame_format, "000").parent
        return [self.shard_folder("frames", folder, dataset, manifest)]

    def evaluation(self, folder: Path) -> Link:
        """Metrics, the scores that they are computed from, and what those were made from."""
        scores_path = folder / "scores.h5"
        scores = read_scores(scores_path)
        record = dict(scores.provenance)
        inputs, parameters = record.get("inputs", {}), record.get("parameters", {})
        link = Link(
            f"scores {self._relative(scores_path)}",
            [
                f"{len(scores.videos)} videos, {len(scores.video)} clips, {len(scores.classes)} classes",
                *_made_by(record),
                *_ran(scores_path),
            ],
            record=record,
        )
        members = parameters.get("members")
        if members:
            for member in members:
                experiment, _, run = member.partition("/")
                split, _, seed = run.partition("-")
                path = self.layout.scores(experiment, split, seed, folder.name)
                link.inputs.append(self._member(path, inputs.get(f"scores {member}", "")))
        else:
            place = (str(parameters.get("experiment")), str(parameters.get("split")), str(parameters.get("seed")))
            link.inputs.append(self.weights(self.layout.weights(*place), inputs.get("weights", "")))
            link.inputs.append(self.manifest(str(parameters.get("dataset")), inputs.get("manifest", "")))
        return link

    def retrieval(self, path: Path) -> Link:
        """What a network's features retrieve, and the network."""
        content = read_metrics(path, "recall_at_1")
        record = content["provenance"]
        figures = ", ".join(f"{name} {value}" for name, value in content["metrics"].items())
        weights = self.layout.weights(content["experiment"], str(content["split"]), str(content["seed"]))
        return Link(
            f"retrieval {self._relative(path)}",
            [figures, *_made_by(record), *_ran(path)],
            inputs=[
                self.weights(weights, record.get("inputs", {}).get("weights", "")),
                self.manifest(content["dataset"], content["manifest"]),
            ],
            record=record,
        )

    def _member(self, path: Path, expected: str) -> Link:
        def build(path: Path) -> Link:
            link = self.evaluation(path.parent)
            if expected and file_digest(path) != expected:
                link.state = f"changed since (it was {expected[:16]})"
            return link

        return self._guarded("scores", path, build)


def chain_of(path: Path) -> Link:
    """The chain behind an artefact.

    Args:
        path: metrics.json, retrieval.json, scores.h5, weights.safetensors, a shard, or a manifest's file or folder.

    Raises:
        UserError: the path is none of these, or cannot be read.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder.")
    root, room = output_root(path)
    chain = Chain(root)
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    inside = folder.relative_to(root).parts[1:]
    if room == "manifests" and inside:
        return chain.manifest(inside[0])
    if room == "experiments" and len(inside) >= 2:
        return chain.weights(root / room / inside[0] / inside[1] / "weights.safetensors")
    if room in ("frames", "motion") and len(inside) == (2 if room == "frames" else 3):
        return chain.shard_folder(room, folder, inside[0])
    if room == "evaluations" and len(inside) == 3:
        retrieval = folder / "retrieval.json"
        if path.name == retrieval.name or (retrieval.is_file() and not (folder / "scores.h5").is_file()):
            return chain.retrieval(retrieval)
        link = chain.evaluation(folder)
        if (folder / "metrics.json").is_file() and path.name != "scores.h5":
            record = read_metrics(folder / "metrics.json")
            figures = ", ".join(f"{name} {value}" for name, value in record["metrics"].items())
            top = Link(f"metrics {chain._relative(folder / 'metrics.json')}", [figures], inputs=[link])
            if record["provenance"].get("digest") != read_scores(folder / "scores.h5").provenance.get("digest"):
                top.state = "not of these scores"
            return top
        return link
    raise UserError(
        f"{path}: give one artefact: a metrics.json, a scores.h5, a weights.safetensors, a shard or a manifest."
    )

"""The record in every artefact: what it was made from, and the digest of what it holds.

A record names its inputs by their paths below the output root, so that a reader can follow the chain from a figure back
to the annotations without knowing the stages. Each input is recorded with the digest of its *content*: if an input is
made again with equal content, nothing that depends on it runs again.
"""

import hashlib
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from pipeline_lib.artefacts.digest import digest, file_digest
from pipeline_lib.artefacts.fingerprint import code_fingerprint
from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json

SHAPES_NO_ARTEFACT = True

LIBRARY_VERSION = "0.1.0"

# A safetensors file begins with the length of its JSON header, 8 bytes little endian; the format's limit on it.
MAXIMUM_HEADER_BYTES = 100_000_000

Record: TypeAlias = dict[str, Any]


def distribution_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of distributions, for the artefacts that depend on them."""
    return {name: metadata.version(name) for name in names}


def torch_versions(device: str) -> dict[str, str]:
    """PyTorch's version with its build, and on a GPU those of CUDA and cuDNN, which shape the bytes there.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    # The caller has imported torch; stages that do not compute need no torch.
    torch = sys.modules["torch"]
    versions = {"torch": str(torch.__version__)}
    if device == "cuda":
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return versions


def make_record(
    stage: str,
    modules: Iterable[str],
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    versions: Mapping[str, str],
    beside: Mapping[str, str] | None = None,
) -> Record:
    """What determines an artefact's bytes, as plain data: no host, no time, no path of this machine.

    Args:
        stage: name of the stage (``extract_frames``).
        modules: the stage's modules; their closure is fingerprinted.
        parameters: every parameter that the stage got.
        inputs: path below the output root → content digest of what the stage read there. A path may be a pattern
            (``frames/ucf101/short256/*.h5``), whose digest is that of all that it matches.
        versions: name → version of each tool that shaped the bytes (ffmpeg, OpenCV, torch …).
        beside: inputs that only the chain needs. The manifest is one of a training: it also changes if a video is added
            to a list that the training does not read, and then the training must not start again.

    Returns:
        A dictionary with these parts, ``library``, ``python`` and ``digest``. The digest covers all parts except
        ``beside``. Parts and checkpoints carry it, so that only work of equal origin is continued.
    """
    record: Record = {
        "stage": stage,
        "library": LIBRARY_VERSION,
        "python": platform.python_version(),
        "code": code_fingerprint(modules),
        "parameters": dict(parameters),
        "inputs": dict(inputs),
        "versions": dict(versions),
    }
    return record | {"digest": digest(record), "beside": dict(beside or {})}


def read_header(path: Path) -> dict[str, Any]:
    """Metadata (specification, provenance, classes …) of a ``.safetensors`` file as plain data, read without torch.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= MAXIMUM_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = parse_json(file.read(length))
        return {name: _plain(text) for name, text in header.get("__metadata__", {}).items()}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as weights ({error}). Delete it and run its target again.") from error


def _plain(text: str) -> Any:
    """A value of the metadata: JSON in this pipeline's files, any text in other files."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def _from_hdf5(path: Path) -> Record:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        # Long records are an HDF5 data set, because HDF5 limits an attribute to 64 kB.
        text = file["provenance"].asstr()[()] if "provenance" in file else file.attrs["provenance"]
    record: Record = parse_json(text)
    return record


def _from_parquet(path: Path) -> Record:
    import pyarrow.parquet as pq

    record: Record = parse_json(pq.read_schema(path).metadata[b"provenance"])
    return record


def _from_json(path: Path) -> Record:
    value = parse_json(path.read_text(encoding="utf-8"))
    # A shard's list has only a content digest; its record is in the manifest's summary.
    record: Record = value["provenance"] if "provenance" in value else {"content": value["content"]}
    return record


def _from_page(path: Path) -> Record:
    found = re.search(r'<script type="application/json" id="provenance">(.*?)</script>', path.read_text("utf-8"), re.S)
    if found is None:
        raise KeyError("provenance")
    record: Record = parse_json(found[1])
    return record


def _from_weights(path: Path) -> Record:
    record: Record = read_header(path)["provenance"]
    return record


_READERS = {
    ".h5": _from_hdf5,
    ".parquet": _from_parquet,
    ".json": _from_json,
    ".html": _from_page,
    ".safetensors": _from_weights,
}


def read_record(path: Path) -> Record | None:
    """The record of an artefact, or None if it has none, is missing, or cannot be read.

    Args:
        path: an artefact. The lists and the table of a manifest lie beside its ``summary.json``, which has the record.
    """
    try:
        record = _READERS[path.suffix](path)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, UserError):
        return None
    return record if isinstance(record, dict) else None


def content_digest(path: Path) -> str:
    """Digest of what an artefact holds: the one in its record, or else the digest of the file's bytes.

    Raises:
        OSError: the file is missing.
    """
    record = read_record(path)
    return str(record["content"]) if record and "content" in record else file_digest(path)


def contents_digest(paths: Iterable[Path]) -> str:
    """Digest of the contents of several artefacts, by their names."""
    return digest({path.name: content_digest(path) for path in paths})


class ContentDigest:
    """SHA-256 over an artefact's parts as they are written: names and bytes, each with its length."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def add(self, name: str, *pieces: bytes | memoryview) -> None:
        """Count a part: its name, then its pieces as one."""
        size = sum(len(piece) for piece in pieces)
        self._hasher.update(f"{name}\0{size}\0".encode())
        for piece in pieces:
            self._hasher.update(piece)

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._hasher.hexdigest()

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
from pipeline_lib.artefacts.sealing import DamageError, damage_named, sealed, unsealed
from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json

SHAPES_NO_ARTEFACT = True

LIBRARY_VERSION = "0.1.0"

# A safetensors file begins with the length of its JSON header, 8 bytes little endian; the format's limit on it.
MAXIMUM_HEADER_BYTES = 100_000_000

SEAL = "checksums"
"""The entry of a ``.safetensors`` file's metadata with the SHA-256 of its header and of its data."""

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
        UserError: the file is missing.
        DamageError: it is damaged.
    """
    return _header(path)[1]


def _header(path: Path) -> tuple[bool, dict[str, Any]]:
    """Whether this pipeline wrote a ``.safetensors`` file, and its metadata."""
    with damage_named(path, "the target that makes it has not run"):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= MAXIMUM_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = parse_json(file.read(length))
        return checked_header(header, path)


def check_weights_file(path: Path) -> None:
    """Check a ``.safetensors`` file of this pipeline, a piece at a time and without torch.

    Raises:
        UserError: the file is missing.
        DamageError: it is not as it was written, or has no checksums.
    """
    is_ours, _ = _header(path)
    with damage_named(path, "the target that makes it has not run"), open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        seal = parse_json(parse_json(file.read(length))["__metadata__"][SEAL]) if is_ours else {}
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != seal.get("data"):
        raise DamageError(path, "its tensors do not agree with their checksum" if is_ours else "it has no checksums")


def checked_header(header: Any, path: Path) -> tuple[bool, dict[str, Any]]:
    """Whether this pipeline wrote the header of a ``.safetensors`` file, and the metadata in it as plain data.

    Raises:
        DamageError: it did, and the header is not as it was written.
    """
    texts = dict(header.get("__metadata__", {}))
    seal = texts.pop(SEAL, None)
    if seal is not None:
        told = parse_json(seal)
        if digest([{**header, "__metadata__": texts}, told["data"]]) != told["header"]:
            raise DamageError(path, "its header does not agree with its checksum")
    elif "provenance" in texts:
        raise DamageError(path, "its header has no checksum")
    return seal is not None, {name: _plain(text) for name, text in texts.items()}


def _plain(text: str) -> Any:
    """A value of the metadata: JSON in this pipeline's files, any text in other files."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def _from_hdf5(path: Path) -> Any:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        # Long records are an HDF5 data set, because HDF5 limits an attribute to 64 kB.
        text = file["provenance"].asstr()[()] if "provenance" in file else file.attrs["provenance"]
    return parse_json(text)


def _from_parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    text = (pq.read_schema(path).metadata or {}).get(b"provenance")
    return None if text is None else parse_json(text)


def _from_json(path: Path) -> Any:
    # The seal of the whole file covers its record too.
    value = unsealed(parse_json(path.read_text(encoding="utf-8")), path)
    # A shard's list has only a content digest; its record is in the manifest's summary.
    if "provenance" not in value:
        return sealed({"content": value["content"]}) if "content" in value else None
    return sealed(value["provenance"])


def _from_page(path: Path) -> Any:
    found = re.search(r'<script type="application/json" id="provenance">(.*?)</script>', path.read_text("utf-8"), re.S)
    if found is None:
        raise ValueError("it holds no record")
    return sealed(parse_json(found[1]))


def _from_weights(path: Path) -> Any:
    return read_header(path).get("provenance")


_READERS = {
    ".h5": _from_hdf5,
    ".parquet": _from_parquet,
    ".json": _from_json,
    ".html": _from_page,
    ".safetensors": _from_weights,
}


def _record(path: Path) -> Record | None:
    """The record of an artefact; None for a file without one.

    Raises:
        OSError: the file is missing.
        DamageError: the record is not as it was written.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        return None
    path.stat()
    with damage_named(path, "the target that makes it has not run"):
        record = reader(path)
    return None if record is None else unsealed(record, path, "its record")


def read_record(path: Path) -> Record | None:
    """The record of an artefact, or None if it has none, is missing, or cannot be read.

    Args:
        path: an artefact. The lists and the table of a manifest lie beside its ``summary.json``, which has the record.
    """
    try:
        return _record(path)
    except (OSError, UserError):
        return None


def require_record(path: Path) -> Record:
    """The record of an artefact; empty if it has none.

    Raises:
        OSError: the file is missing.
        DamageError: the record is not as it was written.
    """
    return _record(path) or {}


def content_digest(path: Path) -> str:
    """Digest of what an artefact holds: the one in its record, or else the digest of the file's bytes.

    Raises:
        OSError: the file is missing.
        DamageError: its record is not as it was written.
    """
    record = _record(path)
    return str(record["content"]) if record and "content" in record else file_digest(path)


def contents_digest(paths: Iterable[Path]) -> str:
    """Digest of the contents of several artefacts, by their names."""
    return digest({path.name: content_digest(path) for path in paths})


def beside_digests(paths: Iterable[Path]) -> dict[str, dict[str, str]]:
    """An entry of an artefact's record: name → SHA-256 of the files that were written with it."""
    return {"files": {path.name: file_digest(path) for path in paths}}


def check_beside(artefact: Path, path: Path, content: bytes) -> None:
    """Check a file that was written with an artefact, by the artefact's record.

    Args:
        artefact: has the record; if it is missing, nothing is known of the file.
        path: of the file.
        content: its bytes.

    Raises:
        DamageError: the artefact's record is damaged, or the file is not the one that was written with it.
    """
    record = _record(artefact) if artefact.is_file() else None
    if record is not None and record.get("files", {}).get(path.name) != hashlib.sha256(content).hexdigest():
        raise DamageError(path, f"it is not what was written with {artefact.name}")


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

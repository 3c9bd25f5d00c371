"""Weight files: safetensors whose bytes depend only on their content."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.artefacts.digest import canonical_json
from pipeline_lib.artefacts.records import ContentDigest
from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata atomically; equal content gives equal bytes.

    Args:
        path: the ``.safetensors`` file.
        tensors: name → tensor, stored contiguous on the CPU.
        metadata: name → plain data, stored as JSON text each (safetensors keeps text only). A record under
            ``provenance`` gets the digest of the file's content.
    """
    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    content = safetensors.torch.save(plain)
    # The library writes metadata in an order that differs between processes, so the header is written here.
    length = int.from_bytes(content[:8], "little")
    header, data = parse_json(content[8 : 8 + length]), memoryview(content)[8 + length :]
    stored = dict(metadata)
    if "provenance" in stored:
        # The content that later stages read: the tensors, and which network they belong to.
        read = {name: value for name, value in stored.items() if name not in ("provenance", "specification")}
        read["model"] = stored.get("specification", {}).get("model")
        digest = ContentDigest()
        digest.add("header", canonical_json([header, read]).encode())
        digest.add("tensors", data)
        stored["provenance"] = {**stored["provenance"], "content": digest.hexdigest()}
    header["__metadata__"] = {name: json.dumps(stored[name], sort_keys=True) for name in sorted(stored)}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, b"".join((len(text).to_bytes(8, "little"), text, data)))


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and metadata.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _tensors(path), load_metadata(path)


def load_metadata(path: Path) -> dict[str, Any]:
    """Read only the metadata: specification, provenance, classes and input, as plain data.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: parse_json(text) for name, text in (file.metadata() or {}).items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    if not path.exists():
        return UserError(f"{path} is missing: the experiment that makes it has to be trained first")
    return UserError(f"{path} cannot be read as weights ({error}). Delete it and run the same target again.")

"""Weight files: safetensors whose bytes depend only on their content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.artefacts.digest import canonical_json
from pipeline_lib.artefacts.digest import digest as value_digest
from pipeline_lib.artefacts.records import SEAL, ContentDigest, checked_header, read_header
from pipeline_lib.artefacts.sealing import DamageError, damage_named, sealed
from pipeline_lib.plain_data import parse_json

_MAKER = "the experiment that makes it has to be trained first"


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata atomically; equal content gives equal bytes.

    Args:
        path: the ``.safetensors`` file. Its header and its data get a checksum each.
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
        stored["provenance"] = sealed(stored["provenance"] | {"content": digest.hexdigest()})
    header["__metadata__"] = {name: json.dumps(stored[name], sort_keys=True) for name in sorted(stored)}
    seal = {"data": hashlib.sha256(data).hexdigest()}
    seal["header"] = value_digest([header, seal["data"]])
    header["__metadata__"][SEAL] = json.dumps(seal, sort_keys=True)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, b"".join((len(text).to_bytes(8, "little"), text, data)))


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and metadata; the file is read once.

    Raises:
        UserError: the file is missing.
        DamageError: it is not as it was written.
    """
    with damage_named(path, _MAKER):
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        is_ours, metadata = checked_header(header, path)
        if is_ours:
            seal = json.loads(header["__metadata__"][SEAL])
            if hashlib.sha256(memoryview(content)[8 + length :]).hexdigest() != seal["data"]:
                raise DamageError(path, "its tensors do not agree with their checksum")
        return safetensors.torch.load(content), metadata


def load_metadata(path: Path) -> dict[str, Any]:
    """Read only the metadata: specification, provenance, classes and input, as plain data.

    Raises:
        UserError: the file is missing.
        DamageError: its header is not as it was written.
    """
    return read_header(path)

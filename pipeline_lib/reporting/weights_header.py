"""The metadata of a weights file, read without torch (a report needs none)."""

import json
from pathlib import Path
from typing import Any

from pipeline_lib.errors import UserError

# A safetensors file begins with the length of its JSON header, 8 bytes little endian; the format's limit on it.
MAXIMUM_HEADER_BYTES = 100_000_000


def read_header(path: Path) -> dict[str, Any]:
    """Metadata (specification, provenance, classes …) of a ``.safetensors`` file as plain data.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= MAXIMUM_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        return {name: json.loads(text) for name, text in header.get("__metadata__", {}).items()}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as weights ({error}). Delete it and run its target again.") from error

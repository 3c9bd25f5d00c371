"""Middlebury's .flo files: ground-truth optical flow (Baker et al., "A Database and Evaluation Methodology", 2007)."""

from pathlib import Path

import numpy as np

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.errors import UserError

_TAG = b"PIEH"


def read_flo(path: Path) -> np.ndarray:
    """Flow of one pair, float32 (2, H, W), in pixels.

    Raises:
        UserError: the file is missing, is no .flo file or is cut short.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if content[:4] != _TAG or len(content) < 12:
        raise UserError(f"{path} is no .flo file: it does not begin with {_TAG.decode()}")
    width, height = np.frombuffer(content, dtype="<i4", count=2, offset=4).tolist()
    if len(content) != 12 + 8 * width * height:
        raise UserError(f"{path} says {width}×{height} but holds {len(content) - 12} bytes of flow")
    values = np.frombuffer(content, dtype="<f4", offset=12).reshape(height, width, 2)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def write_flo(path: Path, flow: np.ndarray) -> None:
    """Write flow (2, H, W), in pixels, as a .flo file."""
    height, width = flow.shape[1:]
    header = _TAG + np.array([width, height], dtype="<i4").tobytes()
    write_bytes(Path(path), header + np.ascontiguousarray(flow.transpose(1, 2, 0), dtype="<f4").tobytes())

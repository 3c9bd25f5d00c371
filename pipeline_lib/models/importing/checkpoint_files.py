"""Public checkpoints as plain arrays, from several kinds of files, without running any code in them.

PyTorch files are read with ``weights_only=True``; PySlowFast's Caffe2 files are bare pickles, read by an unpickler
that accepts only arrays and containers. npz files are read without objects. safetensors hold no code.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline_lib.errors import UserError
from pipeline_lib.unpickling import ArraysUnpickler

# Where the common training codes keep the state dictionary inside their checkpoint.
NESTED = ("state_dict", "model_state", "model_state_dict", "model", "blobs")

EXPORT_TO_NPZ = (
    "TensorFlow's own format is not read here. Where TensorFlow is installed, run\n"
    "  python -c \"import numpy, tensorflow as tf; r = tf.train.load_checkpoint('CHECKPOINT'); "
    "numpy.savez('weights.npz', **{n: r.get_tensor(n) for n in r.get_variable_to_shape_map()})\"\n"
    "and import weights.npz."
)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint.

    Args:
        path: a PyTorch file (zip or the older stream), a bare pickle of arrays, an npz or a safetensors file.

    Returns:
        Name → tensor on the CPU, as in the file; entries that are not numeric arrays are left out.

    Raises:
        UserError: no such file, not a checkpoint, truncated, or carrying code.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix in (".index", ".meta") or ".data-" in path.name:
        raise UserError(f"{path}: {EXPORT_TO_NPZ}")
    with path.open("rb") as file:
        start = file.read(16)
    try:
        if start[:2] == b"PK":
            loaded = _zip(path)
        elif start[8:9] == b"{":
            loaded = safetensors.torch.load_file(path)
        elif start[:1] == b"\x80" or start[:1] in (b"(", b"}", b"c"):
            loaded = _pickle(path)
        elif path.suffix == ".ckpt":
            raise UserError(f"{path}: {EXPORT_TO_NPZ}")
        else:
            raise UserError(f"{path} is not a checkpoint: it starts with {start[:8]!r}")
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable pickle"
        raise UserError(f"{path} is refused: it carries code or is damaged ({reason})") from error
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        KeyError,
        IndexError,
        SafetensorError,
        zipfile.BadZipFile,
    ) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UserError(f"{path} cannot be read as a checkpoint; it may be truncated ({reason})") from e
    # A damaged pickle can raise any error (AttributeError, TypeError, struct.error …).
    except Exception as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error})") from error
    tensors = _flatten(loaded)
    if not tensors:
        raise UserError(f"{path} holds no named tensors; its entries are {_describe(loaded)}")
    return tensors


def _zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if names and all(name.endswith(".npy") for name in names):
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    return torch.load(path, map_location="cpu", weights_only=True)


def _pickle(path: Path) -> Any:
    content = path.read_bytes()
    first = ArraysUnpickler(io.BytesIO(content), encoding="latin1").load()
    # Torch's older stream starts with a magic number, pickled by itself; the state dictionary comes after it.
    if isinstance(first, int):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return first


def _flatten(loaded: Any) -> dict[str, Tensor]:
    """The state dictionary inside a checkpoint: what is nested under a usual key, or the whole."""
    if not isinstance(loaded, Mapping):
        return {}
    for key in NESTED:
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    tensors: dict[str, Tensor] = {}
    for name, value in loaded.items():
        if isinstance(value, Tensor):
            tensors[str(name)] = value.detach()
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            tensors[str(name)] = torch.from_numpy(np.array(value, order="C"))
    return tensors


def _describe(loaded: Any) -> str:
    if isinstance(loaded, Mapping):
        return ", ".join(map(str, list(loaded)[:8])) or "none"
    return f"a {type(loaded).__name__}"

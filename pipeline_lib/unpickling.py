"""Pickles from elsewhere: numbers, text, containers and numpy arrays, without running any code in them."""

import collections
import pickle
from typing import Any

import numpy as np


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """The function by which Python 2 pickles make bytes; other codecs could run code or fill the memory."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding}")
    return text.encode("latin1")


class _Array:
    """Stands for numpy's array class, which a pickle names and could call to ask for gigabytes."""

    def __init__(self, *_: object) -> None:
        raise pickle.UnpicklingError("array of an unusual kind")


def _frombuffer(content: bytes, kind: np.dtype[Any], shape: tuple[int, ...], order: str) -> np.ndarray[Any, Any]:
    """An array of the pickle's own bytes (protocol 5)."""
    return np.frombuffer(content, dtype=kind).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: type, shape: tuple[int, ...], _letter: bytes) -> np.ndarray[Any, Any]:
    """An empty array that the pickle's next instruction fills; numpy's own function would build any class."""
    if kind is not _Array or shape not in ((0,), 0):
        raise pickle.UnpicklingError("array of an unusual kind")
    return np.ndarray((0,), "b")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ADMITTED[_module, "_reconstruct"] = _reconstruct
    _ADMITTED[_module, "scalar"] = np._core.multiarray.scalar  # type: ignore[attr-defined]
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    _ADMITTED[_module, "_frombuffer"] = _frombuffer
for _module in ("builtins", "__builtin__"):
    for _type in (dict, list, tuple, set, frozenset, int, float, complex, bool, str, bytes, bytearray):
        _ADMITTED[_module, _type.__name__] = _type


class ArraysUnpickler(pickle.Unpickler):
    """Unpickles numbers, text, containers and numpy arrays; anything else is an ``UnpicklingError``."""

    def find_class(self, module: str, name: str) -> Any:
        """The accepted class or function of that name."""
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is neither an array nor a container"
            ) from None

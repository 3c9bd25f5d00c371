"""Columns of an index as flat arrays, which any number of processes on one machine share.

A Python object in a column would be copied into every worker, because counting references to it writes into its memory.
"""

import mmap
import os
import shutil
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np

Item = TypeVar("Item")

# Rows that a text of a column shows.
_SHOWN = 5
# Every array starts at a multiple of this in a shared file, as its type demands.
_ALIGNMENT = 64


class Ragged(Sequence[Item], Generic[Item]):
    """Rows of unequal length, one after the other in one array.

    Args:
        values: the rows' values (total,).
        offsets: int64 (N + 1), row n is ``values[offsets[n] : offsets[n + 1]]``.
    """

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values, self.offsets = values, offsets

    @staticmethod
    def _offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return offsets

    @abstractmethod
    def item(self, values: np.ndarray) -> Item:
        """What a row's values mean."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        more = f", … {len(self)} rows" if len(self) > _SHOWN else ""
        return f"{type(self).__name__}({', '.join(map(repr, self[:_SHOWN]))}{more})"

    @overload
    def __getitem__(self, row: int) -> Item: ...
    @overload
    def __getitem__(self, row: slice) -> Self: ...
    def __getitem__(self, row: int | slice) -> Item | Self:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        position = row + len(self) if row < 0 else row
        if not 0 <= position < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.item(self.values[self.offsets[position] : self.offsets[position + 1]])

    def __iter__(self) -> Iterator[Item]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: np.ndarray) -> Self:
        """Some rows, in the given order, int64 (M,)."""
        lengths = np.diff(self.offsets)[rows]
        offsets = self._offsets(lengths)
        # Position of each value: the start of its row, and its place within the row.
        positions = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return type(self)(self.values[positions], offsets)


class Texts(Ragged[str]):
    """Texts as UTF-8; their bytes sort as the texts do."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """The column of some texts."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), cls._offsets([len(text) for text in encoded]))

    def item(self, values: np.ndarray) -> str:
        """The text of its bytes."""
        return values.tobytes().decode("utf-8", "surrogateescape")


class Labels(Ragged[tuple[int, ...]]):
    """The labels of each video, int32; most videos have one."""

    @classmethod
    def of(cls, labels: Sequence[Sequence[int]]) -> "Labels":
        """The column of some videos' labels."""
        flat = np.array([label for own in labels for label in own], dtype=np.int32)
        return cls(flat, cls._offsets([len(own) for own in labels]))

    def item(self, values: np.ndarray) -> tuple[int, ...]:
        """The labels of one video."""
        return tuple(values.tolist())


def _remove(folder: str, owner: int) -> None:
    # A forked worker holds the same object; its end is not the owner's.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


class SharedArrays(Mapping[str, np.ndarray]):
    """Arrays in one file of this machine, which every process maps instead of holding a copy.

    The file lies in the system's folder for temporary files (``TMPDIR``) and goes with the process that wrote it. A
    process that has mapped it keeps what it sees.

    Args:
        arrays: by name; they are written once.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        folder = tempfile.mkdtemp(prefix="pipeline_lib-index-")
        weakref.finalize(self, _remove, folder, os.getpid())
        self._path = Path(folder) / "arrays"
        self._layout: dict[str, tuple[str, int, int]] = {}
        position = 0
        with open(self._path, "wb") as file:
            for name, array in arrays.items():
                position += file.write(b"\0" * (-position % _ALIGNMENT))
                self._layout[name] = array.dtype.str, len(array), position
                position += file.write(np.ascontiguousarray(array).data.cast("B") if len(array) else b"")
        self._map()

    def _map(self) -> None:
        with open(self._path, "rb") as file:
            empty = not self._path.stat().st_size
            self._mapped = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path, "layout": self._layout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._path, self._layout = state["path"], state["layout"]
        self._map()

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, count, position = self._layout[name]
        if not count:
            return np.empty(0, dtype=dtype)
        return np.frombuffer(self._mapped, dtype=dtype, count=count, offset=position)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)

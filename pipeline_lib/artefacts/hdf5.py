"""New HDF5 files on a disk that may be full."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

SHAPES_NO_ARTEFACT = True

# Headers of groups and data sets, and what HDF5 allocates in advance.
_OVERHEAD_BYTES = 1 << 18


@contextmanager
def new_hdf5(path: Path, num_bytes: int, num_later: int = 0) -> Iterator[h5py.File]:
    """Yield a new HDF5 file, after a look whether there is room for it.

    HDF5 ends the process when a disk fills while it closes a file. HDF5's own locks are left out: a file under a
    temporary name has one writer, and not every file system has locks.

    Args:
        path: of the file.
        num_bytes: a bound of what will be written, without the headers.
        num_later: how many more bytes the file will have, which the caller writes and HDF5 does not.

    Raises:
        OSError: the disk is full, or the file may not become so large.
    """
    with open(path, "wb") as file:
        # The length alone takes no room, and shows the limits of a file's size.
        os.ftruncate(file.fileno(), num_bytes + num_later + _OVERHEAD_BYTES)
        os.posix_fallocate(file.fileno(), 0, num_bytes + _OVERHEAD_BYTES)
        os.ftruncate(file.fileno(), 0)
    with h5py.File(path, "w", locking=False) as opened:
        yield opened

"""Files that appear under their final name only when they are complete."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline_lib.errors import error_number


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to the disk, so that a rename after it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, final: Path) -> None:
    """Give a complete file its final name in the same folder, so that file and name survive a power cut."""
    fsync_path(temporary)
    temporary.replace(final)
    fsync_path(final.parent)


@contextmanager
def named_faults(path: Path) -> Iterator[None]:
    """Name the file in an error of the machine: a full disk, a limit, a lost right.

    Raises:
        OSError: with ``filename``, in place of one without it and of the errors of libraries that write by themselves.
    """
    try:
        yield
    except Exception as error:
        number = error_number(error)
        if number is None or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; rename it to ``final`` when the block succeeds.

    The temporary name is unique to the process, so that two writers never share a file. When the block
    raises, the temporary file is removed and an earlier ``final`` stays untouched.

    Args:
        final: the complete file's path. Its folder is created.

    Raises:
        OSError: the folder cannot be written, or the disk is full; it names the file.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent)
    os.close(descriptor)
    temporary = Path(name)
    # mkstemp makes files that only the user can read; an artefact must be as readable as the user's other files.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    try:
        with named_faults(final):
            yield temporary
            publish(temporary, final)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically: equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())

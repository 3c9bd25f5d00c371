"""Seals: checksums inside the small artefacts, so that one that has changed since it was written is never believed.

A disk may change bits without a word, a copy may be cut, a power cut may leave zeros. Each reader of an artefact checks
the seal of what it reads; ``DamageError`` names the file and the command that makes it again. It says nothing about a
video, so nobody counts it as a video that cannot be used.
"""

import errno
import json
import shlex
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.atomic import write_json
from pipeline_lib.artefacts.digest import digest
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.errors import UserError

SHAPES_NO_ARTEFACT = True

CHECKSUM = "checksum"
"""The key of a seal."""

# What a machine, and not the file, is the cause of.
_PASSING = {errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}


class DamageError(UserError):
    """An artefact is not as it was written: bytes have changed or are missing.

    Args:
        path: of the artefact.
        what: is wrong with it.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, what)
        self.path, self.what = Path(path), what

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.what}. {remedy(self.path)}"


def remedy(path: Path) -> str:
    """How a damaged artefact is made again, as a sentence with the command."""
    command = remaking(path)
    if command is None:
        return "Delete it and give the command that made it again."
    return f"Make it again (with the --configfile of its run): {command}"


def remaking(path: Path) -> str | None:
    """The command that makes an artefact again; None if no rule does."""
    layout = Layout.above(path)
    target = None if layout is None else layout.target(path)
    if target is None:
        return None
    name = shlex.quote(str(target))
    return f"snakemake --cores all --forcerun {name} -- {name}"


def unreadable(path: Path, error: Exception, maker: str) -> UserError:
    """The error for a file that a library could not read: it is missing, the machine does not give it, or is damaged.

    Args:
        path: of the file.
        error: the library's.
        maker: what makes the file, for one that is missing.
    """
    if isinstance(error, OSError) and error.errno in _PASSING and path.exists():
        return UserError(f"{path} cannot be read: {error}. Run the same command again when the disk answers.")
    if not path.exists():
        return UserError(f"{path} is missing: {maker}.")
    text = " ".join(str(error).split()) or type(error).__name__
    return DamageError(path, f"it cannot be read ({text[:200]})")


@contextmanager
def damage_named(path: Path, maker: str) -> Iterator[None]:
    """Turn whatever a library raises about a file's bytes into one message.

    Raises:
        UserError: the block raised anything but a ``UserError`` or a lack of memory.
    """
    try:
        yield
    except (UserError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise unreadable(path, error, maker) from error
    except MemoryError as error:
        raise DamageError(path, "it claims more bytes than this machine has memory for") from error
    except Exception as error:
        raise unreadable(path, error, maker) from error


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A value that JSON can express, with the digest of all its other entries under ``checksum``."""
    # As a reader will see it: tuples become lists, keys become text.
    plain: dict[str, Any] = json.loads(json.dumps({key: value[key] for key in value if key != CHECKSUM}))
    return plain | {CHECKSUM: digest(plain)}


def is_sealed(value: Any) -> bool:
    """Whether a value is as ``sealed`` gave it."""
    if not isinstance(value, dict) or CHECKSUM not in value:
        return False
    try:
        found = digest({key: value[key] for key in value if key != CHECKSUM})
    except (UnicodeEncodeError, RecursionError):
        # Halves of characters and endless nesting: nothing that was ever written.
        return False
    return bool(found == value[CHECKSUM])


def unsealed(value: Any, path: Path, what: str = "its content") -> dict[str, Any]:
    """A sealed value without its seal.

    Raises:
        DamageError: it is not as it was written.
    """
    if not is_sealed(value):
        older = isinstance(value, dict) and CHECKSUM not in value
        raise DamageError(path, f"{what} " + ("has no checksum" if older else "does not agree with its checksum"))
    return {key: value[key] for key in value if key != CHECKSUM}


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping as JSON with its seal, atomically; equal values give equal bytes."""
    write_json(path, sealed(value))


def read_sealed_json(path: Path, maker: str = "the command that makes it has not run") -> dict[str, Any]:
    """Read what ``write_sealed_json`` wrote, without the seal.

    Args:
        path: of the file.
        maker: what makes it, for the message if it is missing.

    Raises:
        UserError: the file is missing.
        DamageError: it is not as it was written.
    """
    with damage_named(path, maker):
        value = json.loads(path.read_text(encoding="utf-8"))
    return unsealed(value, path)


def checksum(pieces: Iterable[bytes | memoryview]) -> int:
    """CRC-32 (ISO-HDLC, that of gzip) over some pieces as one, for data of which readers read small parts."""
    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
    return value

"""Errors whose message is for the user and not for a developer: the user's own, and the machine's."""

import errno
import os
import re

SHAPES_NO_ARTEFACT = True

_AGAIN = (
    "run the same command again: what is finished stays, and a stage that can be interrupted goes on from where it was"
)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_ALLOWED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NO_ANSWER = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN, errno.ECONNRESET}
)
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})
# Libraries that write with C or Rust code (HDF5, safetensors, Arrow) only say the number in their message.
_NUMBER = re.compile(r"(?:\berrno = |\bos error |\[Errno )(\d+)")


class UserError(Exception):
    """A problem that the user can fix: it is printed as one message without a traceback, with exit status 2.

    The message names the file, the key and the wrong value, and says what to do.
    """


def error_number(error: BaseException) -> int | None:
    """The ``errno`` that an error of the machine has or names in its text; None if it is no such error."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    if isinstance(error, UserError):
        return None
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk or a user's share of it is full."""
    return error_number(error) in _NO_ROOM


def machine_fault(error: BaseException) -> str | None:
    """What the machine refuses, where, and what helps, as one message; None if an error says something else."""
    number = error_number(error)
    place = getattr(error, "filename", None)
    named = os.fspath(place) if isinstance(place, str | bytes | os.PathLike) else ""
    path = named.decode(errors="backslashreplace") if isinstance(named, bytes) else named
    why = os.strerror(number) if number is not None else ""
    if number in _NO_ROOM:
        shared = path.startswith("/dev/shm")
        where = f" for {path}" if path else ""
        room = "Give the container more (docker run --shm-size=8g)" if shared else "Make room"
        return f"no room on the disk{where} ({why}). {room} and {_AGAIN}."
    if number == errno.EFBIG:
        return (
            f"{path or 'a file'} may not become so large ({why}). Raise the limit (ulimit -f unlimited; some file "
            f"systems have one of their own) and {_AGAIN}."
        )
    if number in _NOT_ALLOWED:
        return (
            f"{path or 'a file'} cannot be read or written ({why}). Give this user the right, or name a folder that "
            f"can be written (the configuration's key output), and {_AGAIN}."
        )
    if number in _NO_ANSWER:
        return f"the disk of {path or 'a file'} does not answer ({why}). When it does, {_AGAIN}."
    if number in _TOO_MANY:
        return f"too many files are open ({path or why}). Raise the limit (ulimit -n 65536) and {_AGAIN}."
    return None

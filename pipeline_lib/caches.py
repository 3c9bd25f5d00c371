"""Where libraries keep what they compile, on machines whose installation and home cannot be written (containers)."""

import getpass
import os
import stat
import tempfile
from pathlib import Path

SHAPES_NO_ARTEFACT = True

PACKAGE = Path(__file__).resolve().parent


def prepare_caches() -> None:
    """Name a temporary folder to each library that could write its cache nowhere else.

    A variable that is set already stays. numba would not import a function that it is told to keep, Triton and torch
    would fail at the first kernel, and matplotlib would warn in every process.
    """
    home = Path(os.environ.get("HOME") or "~").expanduser()
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = {
        # numba writes beside the source, or else into the user's cache.
        "NUMBA_CACHE_DIR": can_be_written(PACKAGE / "flow" / "tvl1" / "__pycache__") or can_be_written(user_cache),
        "TRITON_CACHE_DIR": can_be_written(home / ".triton"),
        "MPLCONFIGDIR": can_be_written(config / "matplotlib"),
        # torch writes into the temporary folder, under the user's name, which a container may not know.
        "TORCHINDUCTOR_CACHE_DIR": user_name() != str(os.getuid()),
    }
    unwritable = [name for name, is_fine in places.items() if not is_fine and not os.environ.get(name)]
    if unwritable:
        folder = _private_folder()
        for name in unwritable:
            os.environ[name] = str(folder / name.lower())


def can_be_written(folder: Path) -> bool:
    """Whether a folder can be written, or can be made."""
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return existing is not None and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def user_name() -> str:
    """The user's name, or the number where the machine knows no name for it."""
    try:
        return getpass.getuser()
    # Python 3.13 raises OSError where earlier versions raise KeyError.
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def _private_folder() -> Path:
    """A folder for temporary files that nobody else can write; the same one for the user's next processes."""
    folder = Path(tempfile.gettempdir()) / f"pipeline-caches-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        # What is compiled is run later, so a folder of somebody else must not be used.
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="pipeline-caches-"))

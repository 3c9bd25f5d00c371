"""Tar archives from strangers, extracted so that nothing lands outside the destination."""

import lzma
import os
import shutil
import tarfile
import threading
import zlib
from pathlib import Path, PurePosixPath

from pipeline_lib.downloads.failures import DiskFullError, FailedError, StoppedError
from pipeline_lib.downloads.pace import require_space
from pipeline_lib.downloads.transfer import DISK_FULL_ERRORS


def _check_member(member: tarfile.TarInfo, folder: Path) -> None:
    """Refuse a member that would land or lead outside ``folder``, or is neither file, folder nor link.

    The rules of tarfile's data filter (PEP 706), checked here because Python has it from 3.11.4 on only (Debian 12
    ships 3.11.2), and because the filter mends some of what is refused here: a hostile archive is refused as a whole.
    """
    path, root = PurePosixPath(member.name), os.path.realpath(folder)
    if path.is_absolute() or member.name.startswith(("/", "\\")):
        raise FailedError(f"refused: the archive's member {member.name!r} is absolute")
    if ".." in path.parts:
        raise FailedError(f"refused: the archive's member {member.name!r} climbs out with `..`")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise FailedError(f"refused: the archive's member {member.name!r} is a device or a pipe")
    places = [path]
    if member.issym():
        places.append(path.parent / member.linkname)
    elif member.islnk():
        places.append(PurePosixPath(member.linkname))
    for place in places:
        if not Path(os.path.realpath(Path(root, place))).is_relative_to(root):
            raise FailedError(f"refused: the archive's member {member.name!r} leads outside")


def _own(member: tarfile.TarInfo) -> None:
    """Make a member ours: no special permissions, no other owner."""
    member.mode = 0o755 if member.isdir() else 0o644
    member.uid, member.gid = os.getuid(), os.getgid()
    member.uname = member.gname = ""


def _check_links(folder: Path) -> None:
    """Refuse symbolic links that lead out of ``folder``, now that all of them exist."""
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            # realpath, unlike resolve, gives a result for links that point at each other.
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise FailedError(f"refused: the archive's link {path.relative_to(folder)} leads outside")


def _move_tree(source: Path, destination: Path) -> int:
    """Move every file below ``source`` to the same place below ``destination``; return how many."""
    count = 0
    for parent, folders, files in os.walk(source):
        place = destination / Path(parent).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            Path(parent, name).replace(place / name)
            count += 1
    return count


def extract(archive: Path, destination: Path, stop: threading.Event, reserve_bytes: int) -> int:
    """Extract a tar archive (plain, gzip, bzip2 or xz) below ``destination``.

    Everything is extracted beside the destination's files first and moved when the whole archive has proved sound.
    No devices, no links that lead out, no special permissions; absolute names and ``..`` are refused altogether.

    Args:
        archive: the file.
        destination: the folder that gets the members.
        stop: ends the extraction between two members.
        reserve_bytes: how much stays free on the disk.

    Returns:
        How many files the archive held.

    Raises:
        FailedError: it is no tar archive, is damaged, or holds something that is refused. Nothing of it is kept.
        StoppedError: the stage ends. Nothing of it is kept.
        DiskFullError: the disk is full. Nothing of it is kept.
    """
    staging = destination / f".{archive.name}.extracting"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            # Where Python has it, tarfile's own filter looks at the members too.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            for member in tar:
                if stop.is_set():
                    raise StoppedError("It was stopped; run the same command again: it goes on from here.")
                _check_member(member, staging)
                _own(member)
                require_space(destination, member.size, reserve_bytes)
                tar.extract(member, staging)
        _check_links(staging)
        return _move_tree(staging, destination)
    except (tarfile.TarError, KeyError, ValueError, RecursionError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise FailedError(f"no sound tar archive: {error}") from error
    except OSError as error:
        if error.errno in DISK_FULL_ERRORS:
            raise DiskFullError(
                f"{destination}: {error.strerror}. Make room and run the same command again."
            ) from error
        raise FailedError(f"the archive cannot be extracted: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)

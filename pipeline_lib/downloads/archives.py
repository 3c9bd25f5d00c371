"""Tar archives from unknown sources: only an undamaged one is extracted, and only below the destination."""

import bz2
import gzip
import lzma
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from pipeline_lib.artefacts.atomic import publish
from pipeline_lib.downloads.session import FailedError, OutcomeError, Session, relative_path

COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# Members that describe the next one (a long name, PAX), which tarfile reads into memory as a whole.
DESCRIPTIONS = b"LKxgX"
LARGEST_DESCRIPTION_BYTES, LARGEST_FILE_BYTES = 1 << 20, 1 << 40


class _Member(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        largest = LARGEST_DESCRIPTION_BYTES if member.type in DESCRIPTIONS else LARGEST_FILE_BYTES
        if not 0 <= member.size <= largest:
            raise tarfile.ReadError(f"the header of {member.name!r} claims {member.size} bytes")
        return member


def _read_to_end(
    tar: tarfile.TarFile, stream: IO[bytes], session: Session
) -> list[tuple[PurePosixPath, tarfile.TarInfo]]:
    """The files of an archive that is undamaged up to its last byte, where gzip, bzip2 and xz keep their checksums."""
    files = []
    for member in tar:
        session.wait()
        if not (member.isreg() or member.isdir()) or member.issparse():
            kind = "a link" if member.issym() or member.islnk() else "a device, a pipe or sparse"
            raise FailedError(f"refused: the archive's member {member.name!r} is {kind}; only plain files are taken")
        if member.isreg():
            files.append((relative_path(member.name), member))
    # tarfile takes a damaged header for the end. The true end is two blocks of zeros.
    stream.seek(tar.offset)
    if stream.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE) or not files:
        raise tarfile.ReadError("a header or the end is missing, cut or damaged")
    while block := stream.read(1 << 20):
        session.wait()
        if block.strip(b"\0"):
            raise tarfile.ReadError("something follows its end")
    return files


def extract(archive: Path, session: Session) -> int:
    """Extract a tar archive (plain, gzip, bzip2 or xz) below the destination; return how many files it held.

    It is read twice, so that damage, a false size or a refused member is found before anything is written. A member
    loses its owner and its permissions, and gets its final name when it is complete.

    Raises:
        FailedError: it is not a tar archive, is damaged, or holds a link, a device, or a name that leads outside;
            nothing of it is kept.
        NotNowError: the disk has no room for it now.
        StoppedError: the stage ends; complete members stay.
        OSError: a member cannot be written.
    """
    part = archive.with_name(f".{archive.name}.member")
    with open(archive, "rb") as file:
        begin = file.read(6)
    opener = next((opener for magic, opener in COMPRESSIONS.items() if begin.startswith(magic)), open)
    with opener(archive, "rb") as stream:
        try:
            tar = tarfile.open(fileobj=stream, mode="r:", tarinfo=_Member)
            files = _read_to_end(tar, stream, session)
        except OutcomeError:
            raise
        except Exception as error:  # an unknown file may raise any error in the parsers
            raise FailedError(f"no sound tar archive: {error}") from error
        session.require_room(sum(member.size for _, member in files))
        try:
            for target, member in [(session.place(path), member) for path, member in files]:
                session.wait()
                content = tar.extractfile(member)
                assert content is not None
                with open(part, "wb") as output:
                    shutil.copyfileobj(content, output)
                publish(part, target)
        finally:
            part.unlink(missing_ok=True)
    return len(files)

"""Which bytes a video has: the digest by which a manifest knows them and the frames stage finds them again.

It imports no decoder, because the frames stage's code depends on it.
"""

import hashlib
import re
import stat
from pathlib import Path

HEAD_BYTES = 1 << 16
JPEG_START = b"\xff\xd8"
_SAMPLED = "sampled-"
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def file_identity(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; if either differs, the file has changed.

    Of a folder of images it is the size of all, and the time of the one that changed last: another image under the same
    name leaves the folder itself as it was.
    """
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size, status.st_mtime_ns
    images = [image.stat() for image in image_files(path)]
    last = max([status.st_mtime_ns, *(image.st_mtime_ns for image in images)])
    return sum(image.st_size for image in images), last


def not_regular(path: Path) -> str:
    """The reason if a path is a pipe, a socket or a device, which reading could wait for forever; else empty."""
    kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    return f"not a video: it is {kind}, not a file" if kind else ""


def is_utf8(text: str) -> bool:
    """Whether a name can be written in UTF-8; others come from old disks (Latin-1 names) or damaged lists."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""A name that can be written in UTF-8: a byte that belongs to no character becomes ``\xe9``."""
    if is_utf8(text):
        return text
    # Python reads such a byte as the character U+DC00 + byte (PEP 383).
    bytes_shown = re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return bytes_shown.encode("utf-8", "backslashreplace").decode()


def image_files(folder: Path) -> list[Path]:
    """The images of a video that comes as a folder, sorted by name; then those in its folders ``u`` and ``v``."""
    return [
        image
        for place in (folder, folder / "u", folder / "v")
        if place == folder or place.is_dir()
        for image in sorted(file for file in place.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    ]


def frames_digest(folder: Path) -> str:
    """SHA-256 of the names and sizes of a folder's images."""
    listed = [(str(image.relative_to(folder)), image.stat().st_size) for image in image_files(folder)]
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def content_digest(path: Path, size: int, whole: bool) -> str:
    """SHA-256 of the whole file, or else of its size and its first and last 64 KiB (``sampled-`` in front)."""
    with open(path, "rb") as file:
        if whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        head = file.read(HEAD_BYTES)
        file.seek(max(size - HEAD_BYTES, 0))
        return _SAMPLED + hashlib.sha256(str(size).encode() + head + file.read(HEAD_BYTES)).hexdigest()


def digest_as(recorded: str, path: Path) -> str:
    """The digest of a file or a folder of images as it is now, taken in the way of a recorded one."""
    if path.is_dir():
        return frames_digest(path)
    return content_digest(path, path.stat().st_size, whole=not recorded.startswith(_SAMPLED))

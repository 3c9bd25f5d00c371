"""One file over HTTP(S): resumed by range requests, checked, and named when it is complete.

This uses urllib3 and ``Range``, because no downloader library does all of it. pooch and parfive cannot resume. pypdl
resumes its own parallel segments, but joins two versions of a file, retries without a pause, and does not say why a
file failed.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import urllib3
from urllib3 import exceptions

from pipeline_lib.artefacts.atomic import publish, write_bytes
from pipeline_lib.downloads.items import Item
from pipeline_lib.downloads.session import FailedError, RefusedError, Session

CHUNK_BYTES = 1 << 16
SYNC_BYTES = 1 << 26
LONGEST_WAIT_SECONDS = 120.0
# Statuses after which the server may answer better later (RFC 9110, RFC 6585).
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# `fetch` decides what else is tried again, because it knows the part.
REDIRECTS_ONLY = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)


def _boot() -> str:
    """Identifies this run of the machine; empty where the system does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


class _TransientError(Exception):
    """This attempt failed and another may succeed, after ``seconds`` if the server says so."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Part:
    """The incomplete file ``.{name}.part`` beside its target.

    The file ``.{name}.part.note`` has four lines: its URL; what identifies its version, a strong ETag or Last-Modified
    (RFC 9110, 13.1.5); in which run of the machine it was written; and how many bytes are on the disk for certain. A
    part without a version is not resumed. A kill loses nothing that was written; a power cut may leave zeros behind the
    bytes that were written through, so after a restart of the machine the part goes on from there.
    """

    def __init__(self, target: Path) -> None:
        self.path, self.note = (target.with_name(f".{target.name}.{end}") for end in ("part", "part.note"))

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def resumable(self, url: str) -> tuple[int, str]:
        """From which byte the part goes on, and its version; the rest of it is cut off."""
        lines = self.note.read_text(errors="replace").split("\n") if self.note.exists() else []
        have, version = 0, ""
        if len(lines) == 4 and lines[0] == url and lines[1] and lines[3].isdecimal():
            version = lines[1]
            have = self.size() if lines[2] and lines[2] == _boot() else min(self.size(), int(lines[3]))
        if self.path.exists():
            os.truncate(self.path, have)
        return have, version

    def describe(self, url: str, version: str, synced: int) -> None:
        """Write the note."""
        write_bytes(self.note, "\n".join((url, version, _boot(), str(synced))).encode())

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def fetch(item: Item, target: Path, session: Session) -> int:
    """Fetch a file to ``target``, with retries; return its size in bytes.

    Raises:
        FailedError: the server does not send it, or the file is not what the list says.
        NotNowError: the server keeps answering that there are too many requests, or the disk has no room now.
        StoppedError: the stage ends; the part stays.
        OSError: the file cannot be written.
    """
    part, settings, fruitless = _Part(target), session.settings, 0
    furthest = part.size()
    while True:
        try:
            _attempt(item, part, session)
            _check(item, part)
            size = part.size()
            publish(part.path, target)
            part.discard()
            return size
        except _TransientError as error:
            # The connection may drop often in a file of many gigabytes; attempts that bring new bytes do not count.
            fruitless = 1 if part.size() > furthest else fruitless + 1
            furthest = max(furthest, part.size())
            if fruitless > settings.retries:
                kind = RefusedError if "HTTP 429" in str(error) else FailedError
                raise kind(f"{error}, after {fruitless} attempts without progress") from error
            seconds = settings.backoff_seconds * 2.0 ** (fruitless - 1) if error.seconds is None else error.seconds
            session.wait(min(seconds, LONGEST_WAIT_SECONDS))


def _attempt(item: Item, part: _Part, session: Session) -> None:
    have, version = part.resumable(item.url)
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    headers["Accept-Encoding"] = "identity"
    options: dict[str, Any] = {"retries": REDIRECTS_ONLY, "timeout": session.settings.timeout_seconds}
    session.spend("requests")
    try:
        with session.pool.request("GET", item.url, headers=headers, preload_content=False, **options) as response:
            _receive(response, item, part, have, session)
    except exceptions.LocationValueError as error:
        raise FailedError(f"no usable URL: {error}") from error
    except exceptions.HTTPError as error:
        cause = getattr(error, "reason", None) or error
        dropped = isinstance(cause, exceptions.ProtocolError)
        raise _TransientError("the connection dropped" if dropped else str(cause).rpartition(": ")[2]) from error


def _receive(response: urllib3.BaseHTTPResponse, item: Item, part: _Part, have: int, session: Session) -> None:
    status, headers = response.status, response.headers
    if status in TRANSIENT_STATUSES:
        with suppress(exceptions.InvalidHeader):
            raise _TransientError(f"HTTP {status}", REDIRECTS_ONLY.get_retry_after(response))
        raise _TransientError(f"HTTP {status}")
    extent = headers.get("Content-Range", "")
    if have and extent == f"bytes */{have}":
        return  # killed between the last byte and the final name
    if (have and status == 416) or (status == 206 and not extent.startswith(f"bytes {have}-")):
        part.discard()
        raise _TransientError("the server does not go on where the file broke off")
    if status not in (200, 206):
        raise FailedError(f"HTTP {status}")
    if headers.get("Content-Type", "").startswith("text/html") and not item.path.name.endswith("html"):
        raise FailedError("the server answered with a web page instead of the file")
    have = have if status == 206 else 0
    remaining: int | None = getattr(response, "length_remaining", None)
    total, expected = have + (remaining or 0), item.expected.get("size")
    if remaining is not None and expected is not None and total != int(expected):
        raise FailedError(f"the server has {total} bytes, the list says {expected}")
    session.require_room(total - have)
    etag = headers.get("ETag", "W/")  # a weak ETag does not promise equal bytes
    version = headers.get("Last-Modified", "") if etag.startswith("W/") else etag
    with open(part.path, "r+b" if have else "wb") as file:
        # The part is emptied first, because a new note must never describe bytes of an old version.
        part.describe(item.url, version, have)
        file.seek(have)
        synced = have
        # read1 returns what has arrived; read would lose up to a chunk if the connection is reset.
        while chunk := response.read1(CHUNK_BYTES, decode_content=False):
            file.write(chunk)
            session.spend("bytes", len(chunk))
            if file.tell() - synced >= SYNC_BYTES:
                file.flush()
                os.fsync(file.fileno())
                synced = file.tell()
                part.describe(item.url, version, synced)
    if part.size() < total:
        raise _TransientError(f"the connection dropped after {part.size()} of {total} bytes")


def _check(item: Item, part: _Part) -> None:
    for name, expected in item.expected.items():
        with open(part.path, "rb") as file:
            found = str(part.size()) if name == "size" else hashlib.file_digest(file, name).hexdigest()
        if found != expected:
            part.discard()
            raise _TransientError(f"damaged: {name} is {found}, the list says {expected}")

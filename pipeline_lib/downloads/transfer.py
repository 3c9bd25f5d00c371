"""One file over HTTP(S): resumed by range requests, checked, and renamed when it is whole."""

import email.utils
import errno
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    LocationValueError,
    MaxRetryError,
    NameResolutionError,
    ReadTimeoutError,
    SSLError,
    URLSchemeUnknown,
)

from pipeline_lib.artefacts.atomic import fsync_path, write_json
from pipeline_lib.downloads.failures import DiskFullError, FailedError, RefusedError, StoppedError, TransientError
from pipeline_lib.downloads.items import Item
from pipeline_lib.downloads.pace import Pace, require_space

CHUNK_BYTES = 1 << 16
LONGEST_WAIT_SECONDS = 120.0
# RFC 9110 and RFC 6585: the server may do better later.
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass
class Connection:
    """What all transfers of a stage share."""

    pool: urllib3.PoolManager
    requests: Pace
    bytes: Pace
    stop: threading.Event
    workers: int
    retries: int
    backoff_seconds: float
    timeout_seconds: float
    reserve_bytes: int


def connect(
    workers: int,
    stop: threading.Event,
    *,
    requests_per_second: float | None = None,
    bytes_per_second: float | None = None,
    retries: int = 5,
    backoff_seconds: float = 1.0,
    timeout_seconds: float = 30.0,
    reserve_bytes: int = 0,
) -> Connection:
    """Make the shared connection pool and rates of a stage with ``workers`` threads."""
    return Connection(
        urllib3.PoolManager(maxsize=workers, num_pools=16),
        Pace(requests_per_second, stop),
        Pace(bytes_per_second, stop),
        stop,
        workers,
        retries,
        backoff_seconds,
        timeout_seconds,
        reserve_bytes,
    )


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3: seconds or a date); None if it says nothing."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def cause_of(error: Exception) -> str:
    """An exception of the HTTP client in words that a list of failures can carry."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        return cause_of(error.reason)
    if isinstance(error, NameResolutionError):
        return "the server's name does not resolve"
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return "timed out"
    if isinstance(error, IncompleteRead):
        return "the connection dropped before the end"
    if isinstance(error, SSLError):
        return f"TLS: {error}"
    if "Connection refused" in str(error):
        return "connection refused"
    if isinstance(error, HTTPError):
        return "the connection dropped"
    return f"{type(error).__name__}: {error}"


class Transfer:
    """One file on its way to ``target``.

    While it is incomplete it is ``.{name}.part`` beside the target, with what identifies its version (ETag, or
    Last-Modified, RFC 9110, 13.1.5) and its size in ``.{name}.part.json``. Without either it starts afresh.
    """

    def __init__(self, item: Item, target: Path, connection: Connection) -> None:
        self.item, self.target, self.connection = item, target, connection
        self.part = target.with_name(f".{target.name}.part")
        self.note = target.with_name(f".{target.name}.part.json")
        self._furthest = self._size()
        self._fruitless = 0

    def run(self) -> int:
        """Fetch the file, with retries; return its size in bytes.

        Raises:
            FailedError: the server does not give it, or what came is not what was expected.
            RefusedError: the server goes on answering that there are too many requests.
            StoppedError: the stage ends; the part stays.
            DiskFullError: the disk is full; the part stays.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=self._is_hopeless,
            wait=self._wait_seconds,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            size: int = retrying(self._attempt)
        except TransientError as error:
            if "HTTP 429" in str(error):
                raise RefusedError(f"{error}, after {self._fruitless} attempts") from error
            raise FailedError(f"{error}, after {self._fruitless} attempts without progress") from error
        except OSError as error:
            if error.errno in DISK_FULL_ERRORS:
                raise DiskFullError(
                    f"{self.part}: {error.strerror}. Make room and run the same command again."
                ) from error
            raise FailedError(f"{error.strerror}: {error.filename}") from error
        return size

    # Retries

    def _is_hopeless(self, _state: RetryCallState) -> bool:
        # An archive of many gigabytes may drop often; as long as each attempt brings it further it goes on.
        size = self._size()
        if size > self._furthest:
            self._furthest, self._fruitless = size, 0
        self._fruitless += 1
        return self._fruitless > self.connection.retries

    def _wait_seconds(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        if asked is not None:
            return min(asked, LONGEST_WAIT_SECONDS)
        return min(self.connection.backoff_seconds * 2.0 ** max(0, self._fruitless - 1), LONGEST_WAIT_SECONDS)

    def _sleep(self, seconds: float) -> None:
        if self.connection.stop.wait(seconds):
            raise StoppedError("It was stopped; run the same command again: it goes on from here.")

    # One attempt

    def _size(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def _read_note(self) -> dict[str, Any]:
        try:
            note = json.loads(self.note.read_text())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) and note.get("url") == self.item.url else {}

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _attempt(self) -> int:
        connection = self.connection
        note = self._read_note()
        have = self._size() if note.get("validator") else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": note["validator"]}
        connection.requests.spend()
        try:
            response = connection.pool.request(
                "GET",
                self.item.url,
                headers=headers,
                preload_content=False,
                timeout=connection.timeout_seconds,
                # Redirects only: what else is tried again is decided here, where the part is known.
                retries=urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5),
            )
        except (LocationValueError, URLSchemeUnknown) as error:
            raise FailedError(f"no usable URL: {error}") from error
        except HTTPError as error:
            raise TransientError(cause_of(error)) from error
        try:
            return self._receive(response, have, note)
        finally:
            # A connection with unread bytes cannot serve another request.
            response.close()

    def _receive(self, response: urllib3.BaseHTTPResponse, have: int, note: dict[str, Any]) -> int:
        status = response.status
        if status in TRANSIENT_STATUSES:
            raise TransientError(f"HTTP {status}", parse_retry_after(response.headers.get("Retry-After")))
        if status == 416 and have:
            # Nothing lies behind what is here: it is whole, or of another version.
            if have == note.get("total"):
                return self._finish(have)
            self._discard()
            raise TransientError("the file on the server has changed")
        if status not in (200, 206):
            raise FailedError(f"HTTP {status}")
        if response.headers.get("Content-Type", "").startswith("text/html") and not self.target.name.endswith("html"):
            raise FailedError("the server answered with a web page instead of the file")
        length = response.headers.get("Content-Length")
        total = None if length is None else int(length)
        if status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != have:
                self._discard()
                raise TransientError("the server sent another range than asked for")
            total = None if match[2] == "*" else int(match[2])
        else:
            have = 0
        expected = self.item.size
        if expected is not None and total is not None and total != expected:
            self._discard()
            raise FailedError(f"the server has {total} bytes, the list says {expected}")
        require_space(self.target.parent, (total or have) - have, self.connection.reserve_bytes)
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator is not None and validator.startswith("W/"):
            validator = response.headers.get("Last-Modified")  # a weak ETag does not promise equal bytes
        write_json(self.note, {"url": self.item.url, "validator": validator, "total": total})
        size = self._store(response, have)
        if total is not None and size < total:
            raise TransientError(f"the connection dropped after {size} of {total} bytes")
        return self._finish(size)

    def _store(self, response: urllib3.BaseHTTPResponse, have: int) -> int:
        connection = self.connection
        with open(self.part, "r+b" if have else "wb") as file:
            file.truncate(have)
            file.seek(have)
            try:
                # read1 hands on what has come; read would lose up to a chunk when the connection is reset.
                while chunk := response.read1(CHUNK_BYTES, decode_content=False):
                    file.write(chunk)
                    if connection.stop.is_set():
                        raise StoppedError("It was stopped; run the same command again: it goes on from here.")
                    connection.bytes.spend(len(chunk))
            except HTTPError as error:
                raise TransientError(cause_of(error)) from error
            return file.tell()

    def _finish(self, size: int) -> int:
        if self.item.size is not None and size != self.item.size:
            self._discard()
            raise TransientError(f"{size} bytes came, the list says {self.item.size}")
        for name, expected in (("sha256", self.item.sha256), ("md5", self.item.md5)):
            if expected is not None:
                with open(self.part, "rb") as file:
                    found = hashlib.file_digest(file, name).hexdigest()
                if found != expected:
                    self._discard()
                    raise TransientError(f"checksum: {name} is {found}, the list says {expected}")
        fsync_path(self.part)
        self.part.replace(self.target)
        self.note.unlink(missing_ok=True)
        fsync_path(self.target.parent)
        return size


def fetch_text(url: str, connection: Connection, scratch: Path) -> str:
    """The text of a small file on a server (a list of archives).

    Raises:
        FailedError: it cannot be had, or is no UTF-8.
    """
    target = scratch / "list.txt"
    Transfer(Item("list.txt", url, PurePosixPath("list.txt")), target, connection).run()
    try:
        return target.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FailedError(f"{url} is no text: {error}") from error
    finally:
        target.unlink(missing_ok=True)

"""A real HTTP server on loopback that misbehaves on demand."""

import email.utils
import hashlib
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Resource:
    """What one path serves, and how badly.

    Attributes:
        content: the bytes.
        statuses: answers of this many first requests instead of the content; the last repeats if ``forever``.
        drop_after: bytes per request after which the connection is reset; None serves all.
        polite: that connection is closed as if all had been sent, not reset.
        num_drops: how many requests are dropped so.
        delay: seconds before the answer.
        stall_after: bytes after which the server falls silent.
        ranges: whether range requests are honoured.
        validator: whether an ETag is sent.
        retry_after: the header of an error answer.
        claims: bytes that the header announces; None tells the truth.
    """

    content: bytes = b""
    statuses: list[int] = field(default_factory=list)
    forever: bool = False
    drop_after: int | None = None
    polite: bool = False
    num_drops: int = 1_000_000
    delay: float = 0.0
    stall_after: int | None = None
    ranges: bool = True
    validator: bool = True
    retry_after: str | None = None
    content_type: str = "video/mp4"
    redirect: str | None = None
    claims: int | None = None


@dataclass
class Server:
    url: str
    resources: dict[str, Resource]
    requests: Counter = field(default_factory=Counter)
    sent: Counter = field(default_factory=Counter)
    range_headers: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    active: int = 0
    most_active: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def _error(self, status: int, resource: Resource | None = None) -> None:
        self.send_response(status)
        if resource is not None and resource.retry_after is not None:
            self.send_header("Retry-After", resource.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _reset(self) -> None:
        # A reset, not a polite end: linger 0.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def do_GET(self) -> None:
        state = self.server_state
        with state.lock:
            state.requests[self.path] += 1
            number = state.requests[self.path]
            state.times.append(time.monotonic())
            state.active += 1
            state.most_active = max(state.most_active, state.active)
        try:
            self._serve(state, number)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with state.lock:
                state.active -= 1

    def _serve(self, state: Server, number: int) -> None:
        resource = state.resources.get(self.path)
        if resource is None:
            return self._error(404)
        if resource.delay:
            time.sleep(resource.delay)
        if resource.redirect is not None:
            self.send_response(302)
            self.send_header("Location", resource.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if number <= len(resource.statuses) or (resource.forever and resource.statuses):
            return self._error(resource.statuses[min(number, len(resource.statuses)) - 1], resource)
        etag = f'"{hashlib.md5(resource.content).hexdigest()}"'
        begin, total = 0, len(resource.content)
        asked = self.headers.get("Range")
        if asked and resource.ranges and (self.headers.get("If-Range") or etag) == etag:
            state.range_headers.append(asked)
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if begin >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
        else:
            self.send_response(200)
        body = resource.content[begin:]
        self.send_header("Content-Length", str(len(body) if resource.claims is None else resource.claims))
        self.send_header("Content-Type", resource.content_type)
        self.send_header("Date", email.utils.formatdate(usegmt=True))
        if resource.validator:
            self.send_header("ETag", etag)
        self.end_headers()
        if self.command == "HEAD":
            return None
        if resource.drop_after is not None and number <= resource.num_drops and len(body) > resource.drop_after:
            self.wfile.write(body[: resource.drop_after])
            self.wfile.flush()
            state.sent[self.path] += resource.drop_after
            if resource.polite:
                self.close_connection = True
                return None
            time.sleep(0.05)  # what was written arrives before the reset discards it
            return self._reset()
        if resource.stall_after is not None and number == 1:
            self.wfile.write(body[: resource.stall_after])
            self.wfile.flush()
            time.sleep(3)
            return self._reset()
        self.wfile.write(body)
        state.sent[self.path] += len(body)
        if resource.claims is not None:
            self.close_connection = True
        return None


@contextmanager
def loopback_server(resources: dict[str, Resource]) -> Iterator[Server]:
    """Serve ``resources`` by path on a free port of loopback."""
    state = Server("", resources)
    handler = type("Handler", (_Handler,), {"server_state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""Probing many files in processes that can be killed: a hostile file can hang or crash a decoder."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline_lib.manifests import probing_worker
from pipeline_lib.manifests.probing import Probe


@dataclass
class _Worker:
    process: subprocess.Popen
    path: str = ""
    deadline: float = 0.0
    received: bytearray = field(default_factory=bytearray)


class ProbePool:
    """Probes files in worker processes, each file under a time limit.

    Args:
        num_workers: processes.
        decode: decode every frame, or only the first.
        seconds: time limit per file; the process that exceeds it is killed and replaced.
        command: the worker's command line; tests put one in that hangs.
    """

    def __init__(self, num_workers: int, decode: bool, seconds: float, command: tuple[str, ...] | None = None) -> None:
        self.num_workers = max(1, num_workers)
        self.decode = decode
        self.seconds = seconds
        self.command = command or (sys.executable, "-m", probing_worker.__name__)

    def _start(self) -> _Worker:
        process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        return _Worker(process)

    def _give(self, worker: _Worker, path: str) -> None:
        worker.path = path
        worker.deadline = time.monotonic() + self.seconds
        worker.received.clear()
        request = json.dumps({"path": path, "decode": self.decode, "seconds": self.seconds})
        assert worker.process.stdin is not None
        # A worker that died idle is seen as the end of its output, and its file reported.
        with suppress(BrokenPipeError):
            worker.process.stdin.write(request.encode() + b"\n")

    @staticmethod
    def _stop(worker: _Worker) -> None:
        worker.process.kill()
        worker.process.wait()
        for stream in (worker.process.stdin, worker.process.stdout):
            if stream is not None:
                stream.close()

    def run(self, paths: Iterable[str], report: Callable[[str, Probe], None]) -> None:
        """Probe all paths; call ``report(path, probe)`` for each as it finishes, in any order.

        Args:
            paths: files or folders of frames.
            report: called in the calling thread.
        """
        waiting = iter(paths)
        selector = selectors.DefaultSelector()
        busy: set[int] = set()
        workers: dict[int, _Worker] = {}

        def start_next(worker: _Worker | None) -> None:
            path = next(waiting, None)
            if path is None:
                if worker is not None:
                    self._stop(worker)
                return
            worker = worker or self._start()
            assert worker.process.stdout is not None
            descriptor = worker.process.stdout.fileno()
            workers[descriptor] = worker
            selector.register(descriptor, selectors.EVENT_READ)
            busy.add(descriptor)
            self._give(worker, path)

        def release(descriptor: int) -> _Worker:
            selector.unregister(descriptor)
            busy.discard(descriptor)
            return workers.pop(descriptor)

        try:
            for _ in range(self.num_workers):
                start_next(None)
            while busy:
                nearest = min(workers[descriptor].deadline for descriptor in busy)
                for key, _ in selector.select(max(nearest - time.monotonic(), 0) + 0.01):
                    worker = workers[key.fd]
                    piece = os.read(key.fd, 1 << 16)
                    worker.received += piece
                    if worker.received.endswith(b"\n"):
                        release(key.fd)
                        report(worker.path, Probe(**json.loads(worker.received)))
                        start_next(worker)
                    elif not piece:
                        release(key.fd)
                        self._stop(worker)
                        status = worker.process.returncode
                        how = f"signal {-status}" if status < 0 else f"exit status {status}"
                        report(worker.path, Probe(problem=f"undecodable: the decoder crashed ({how})"))
                        start_next(None)
                now = time.monotonic()
                for descriptor in [d for d in busy if workers[d].deadline <= now]:
                    worker = release(descriptor)
                    self._stop(worker)
                    report(worker.path, Probe(problem=f"probing timed out: no answer within {self.seconds:g} s"))
                    start_next(None)
        finally:
            for worker in list(workers.values()):
                self._stop(worker)
            selector.close()

"""Probes many files in processes that can be killed, because a hostile file can hang or crash a decoder."""

import json
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

from pipeline_lib.artefacts.fingerprint import PACKAGE_FOLDER
from pipeline_lib.manifests.probing import Probe, probe_file, unreadable

# A hostile file may declare a frame of gigabytes; 8K video needs far less memory than this.
_MEMORY_BYTES = 6 << 30
# Workers are forked from a process that has imported the decoders, so that a new one takes milliseconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])
# Starting a process also collects those that have ended; two threads at a time would lose an exit status.
_LOCK = Lock()

ProbeFunction = Callable[[Path, bool], Probe]


class _Worker:
    """A probing process, used by one thread at a time."""

    def __init__(self, decode: bool, seconds: float, probe: ProbeFunction) -> None:
        self.seconds = seconds
        self.pipe, other_end = _CONTEXT.Pipe()
        arguments = (other_end, decode, seconds, probe)
        self.process = _CONTEXT.Process(target=_answer_requests, args=arguments, daemon=True)
        with _LOCK, closing(other_end):
            self.process.start()

    def ask(self, path: str) -> tuple[Probe, bool]:
        """The probe of a file, or how the process ended on it; and whether the process can be used again."""
        try:
            self.pipe.send(path)
            if self.pipe.poll(self.seconds):
                return self.pipe.recv(), True
            return Probe(problem=f"probing timed out: no answer within {self.seconds:g} s", passing=True), False
        except (EOFError, OSError):
            with _LOCK:
                self.process.join(self.seconds)
            return _crashed(self.process.exitcode or 0), False

    def stop(self) -> None:
        """Kill the process."""
        with _LOCK:
            self.process.kill()
            self.process.join()
        self.pipe.close()


def probe_each(
    paths: Iterable[str], num_workers: int, decode: bool, seconds: float, probe: ProbeFunction = probe_file
) -> Iterator[tuple[str, Probe]]:
    """Probe files; yield each with its probe when it finishes, in any order.

    Args:
        paths: files or folders of frames.
        num_workers: processes at a time.
        decode: decode every frame, or only the first.
        seconds: time limit per file; the process that exceeds it is killed and replaced.
        probe: the function that probes a file; it must belong to a module, because other processes call it.
    """
    num_workers = max(1, num_workers)
    idle: SimpleQueue[_Worker | None] = SimpleQueue()
    for _ in range(num_workers):
        idle.put(None)

    def probe_one(path: str) -> tuple[str, Probe]:
        worker = idle.get() or _Worker(decode, seconds, probe)
        found, usable = worker.ask(path)
        if not usable:
            worker.stop()
        idle.put(worker if usable else None)
        return path, found

    try:
        with ThreadPool(num_workers) as threads:
            yield from threads.imap_unordered(probe_one, paths)
    finally:
        while not idle.empty():
            worker = idle.get()
            if worker is not None:
                worker.stop()


def run_alone(script: str, arguments: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[bytes]":
    """Run some lines of Python in an interpreter of its own.

    It serves programs that cannot use :mod:`multiprocessing`, because that runs a program's main file again.

    Raises:
        subprocess.TimeoutExpired: it takes longer than ``seconds``.
    """
    others = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGE_FOLDER.parent), *others])}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, timeout=seconds, env=environment, check=False)


def probe_alone(path: Path, decode: bool, seconds: float) -> Probe:
    """Probe one file in an interpreter of its own.

    Args:
        path: a file or a folder of frames.
        decode: decode every frame, or only the first.
        seconds: time limit.
    """
    script = "import sys; from pipeline_lib.manifests import pool; pool.print_probe(*sys.argv[1:])"
    try:
        done = run_alone(script, [os.fspath(path), str(int(decode))], seconds)
        return Probe(**json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return Probe(problem=f"probing timed out: no answer within {seconds:g} s", passing=True)
    except ValueError:
        return _crashed(done.returncode)


def print_probe(path: str, decode: str) -> None:
    """Print the probe of a file as JSON: what ``probe_alone`` runs."""
    limit_resources()
    print(json.dumps(_guarded(probe_file, path, bool(int(decode))).to_json()))


def _crashed(status: int) -> Probe:
    """The probe of a file on which the process ended; the machine may have ended it for want of memory."""
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return Probe(problem=f"undecodable: the decoder crashed ({how})", passing=True)


def limit_resources(memory_bytes: int = _MEMORY_BYTES) -> None:
    """Bound the address space of this process, and let a crash leave no core file."""
    # A hard limit of the machine's own (ulimit -v, a cluster's) stays; it cannot be raised.
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _guarded(probe: ProbeFunction, path: str, decode: bool) -> Probe:
    """A probe, or the error as one."""
    try:
        return probe(Path(path), decode)
    except FileNotFoundError:
        return Probe(problem="missing: it vanished while it was probed", passing=True)
    except OSError as error:
        return Probe(problem=unreadable(error), passing=True)
    except (MemoryError, ValueError, ArithmeticError) as error:
        # The message is left out: libavformat's holds the path, which differs between machines.
        return Probe(problem=f"undecodable: {type(error).__name__}", passing=isinstance(error, MemoryError))


def _answer_requests(pipe: Connection, decode: bool, seconds: float, probe: ProbeFunction) -> None:
    """Run in a probing process: receive paths and send probes until the connection is closed."""
    limit_resources()
    # If the parent is killed while a decoder hangs here, the alarm ends this process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        signal.alarm(math.ceil(seconds) + 5)
        found = _guarded(probe, path, decode)
        signal.alarm(0)
        pipe.send(found)

"""What a machine refuses is one message that names the place and the remedy, and costs no finished work."""

import errno
import fcntl
import getpass
import io
import json
import os
import re
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib import __main__ as command_line
from pipeline_lib import caches
from pipeline_lib.artefacts.atomic import atomic_path, named_faults, write_bytes
from pipeline_lib.artefacts.hdf5 import new_hdf5
from pipeline_lib.artefacts.journal import Journal
from pipeline_lib.artefacts.locking import artefact_lock
from pipeline_lib.artefacts.stage import Stage, read_sidecar
from pipeline_lib.errors import UserError, is_full, machine_fault
from pipeline_lib.manifests.cache import ProbeCache
from pipeline_lib.manifests.probing import Probe


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Let no file become larger. The kernel refuses at the same moments as a full disk, and it takes no rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no room on the disk for {} .*Make room and run the same command again"),
        (errno.EDQUOT, "no room on the disk for {}"),
        (errno.EFBIG, "{} may not become so large .*ulimit -f"),
        (errno.EROFS, "{} cannot be read or written .*the configuration's key output"),
        (errno.EACCES, "{} cannot be read or written"),
        (errno.EIO, "the disk of {} does not answer"),
        (errno.ESTALE, "the disk of {} does not answer"),
        (errno.EMFILE, "too many files are open .*ulimit -n"),
    ],
)
def test_a_fault_of_the_machine_names_place_and_remedy(number: int, words: str) -> None:
    message = machine_fault(OSError(number, "x", "/data/out.h5"))
    assert message is not None
    assert re.search(words.format("/data/out.h5"), message), message


def test_other_errors_stay_errors() -> None:
    for error in (ValueError("x"), KeyError("x"), FileNotFoundError(errno.ENOENT, "x", "y"), UserError("os error 28")):
        assert machine_fault(error) is None
    assert "--shm-size" in str(machine_fault(OSError(errno.ENOSPC, "x", "/dev/shm")))


@pytest.mark.parametrize(
    "text",
    [
        "I/O error: No space left on device (os error 28)",
        "Can't write data (file write failed: errno = 28, error message = 'No space left on device')",
        "[Errno 28] Error writing bytes to file",
    ],
)
def test_libraries_that_write_by_themselves_are_understood(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    with pytest.raises(OSError, match="No space left") as caught, named_faults(path):
        raise RuntimeError(text)
    assert is_full(caught.value) and caught.value.filename == str(path)


def test_a_file_that_may_not_grow_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    write_bytes(path, b"earlier")
    with files_of_at_most(1000), pytest.raises(OSError) as caught:
        write_bytes(path, bytes(5000))
    assert caught.value.filename == str(path) and caught.value.errno == errno.EFBIG
    with files_of_at_most(1000), pytest.raises(OSError) as caught, atomic_path(path) as temporary:
        # HDF5 would end the process when it closes a file that it cannot write.
        with new_hdf5(temporary, 4000) as file:
            file.create_dataset("x", data=b"1")
    assert caught.value.filename == str(path) and caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


def test_a_journal_keeps_its_items_when_there_is_no_more_room(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.h5", "origin") as journal:
        journal.append({"id": 1}, [b"x" * 900])
        with files_of_at_most(1000), pytest.raises(OSError) as caught:
            journal.append({"id": 2}, [b"y" * 900])
        assert caught.value.filename == str(journal.blob)
    with Journal(tmp_path / "a.h5", "origin") as journal:
        assert [entry.item for entry in journal.entries] == [{"id": 1}]
        journal.append({"id": 2}, [b"y" * 900])
        assert journal.blob.read_bytes() == b"x" * 900 + b"y" * 900


def test_the_cache_of_probes_names_its_file_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "probes.sqlite"
    with files_of_at_most(100), pytest.raises(OSError) as caught:
        ProbeCache(path, "x").store("a", 1, 1, Probe(1))
    assert caught.value.filename == str(path)
    path.unlink(missing_ok=True)
    for damage in (b"no database" * 100, None):
        if damage is not None:
            path.write_bytes(damage)
        else:
            with sqlite3.connect(path) as connection:
                connection.execute("UPDATE probes SET probe = ?", ("[" * 100_000,))
        with ProbeCache(path, "x") as cache:
            assert cache.load() == {}
            cache.store("a", 1, 2, Probe(num_frames=3))
        with ProbeCache(path, "x") as cache:
            assert cache.load() == {"a": (1, 2, Probe(num_frames=3))}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_record_locks_this_machine_is_guarded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    artefact, lockf = tmp_path / "output" / "x.h5", fcntl.lockf
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def refuse(file: Any, operation: int) -> None:
        if "output" in str(getattr(file, "name", "")):
            raise OSError(number, os.strerror(number))
        lockf(file, operation)

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with artefact_lock(artefact, 0.0):
        said = capsys.readouterr().err
        assert f"{artefact.parent}: this file system has no locks" in said and "this machine alone" in said
        (stands_for_it,) = (tmp_path / "tmp").iterdir()
        # Another process of this machine finds it held.
        script = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = subprocess.run([sys.executable, "-c", script, str(stands_for_it)], capture_output=True, check=False)
        assert b"BlockingIOError" in other.stderr
    with artefact_lock(artefact, 0.0):
        pass


def test_a_lock_that_cannot_be_named_holds(tmp_path: Path) -> None:
    with files_of_at_most(0), artefact_lock(tmp_path / "x.h5", 0.0):
        pass


def test_a_log_on_a_full_disk_loses_lines_and_ends_nothing() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        log = io.TextIOWrapper(
            io.BufferedWriter(command_line._LossyFile(full.fileno(), "wb", closefd=False)), line_buffering=True
        )
        print("a line", file=log, flush=True)
        log.close()


def test_a_command_ends_with_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline_lib.cli import models

    def fail(_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system", "/out/x")

    monkeypatch.setattr(models, "run", fail)
    assert command_line.main(["models"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: /out/x cannot be read or written (Read-only file system). Give")
    assert said.count("\n") == 1


def test_what_can_be_written_nowhere_goes_to_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")
    for name in (*variables, "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    caches.prepare_caches()
    assert not any(os.environ[name] for name in variables), "all can be written"

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(caches, "can_be_written", lambda _: False)
    monkeypatch.setattr(getpass, "getuser", unknown)
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    caches.prepare_caches()
    folder = tmp_path / f"pipeline-caches-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder / "numba_cache_dir") and os.environ["MPLCONFIGDIR"] == "mine"
    # A folder that others can write is not trusted with code.
    folder.chmod(0o777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    caches.prepare_caches()
    assert os.environ["NUMBA_CACHE_DIR"] and not os.environ["NUMBA_CACHE_DIR"].startswith(f"{folder}/")


def test_a_user_without_a_name_finishes_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(getpass, "getuser", unknown)
    with Stage("x", ["pipeline_lib.errors"], tmp_path / "a.json") as stage:
        stage.describe({}, {}, {})
        (tmp_path / "a.json").write_text("{}")
        stage.finish()
    assert read_sidecar(tmp_path / "a.json")["user"] == str(os.getuid())


def test_folders_that_cannot_be_written_are_known(tmp_path: Path) -> None:
    assert caches.can_be_written(tmp_path / "a" / "b")
    (tmp_path / "file").write_text(json.dumps(1))
    assert not caches.can_be_written(tmp_path / "file" / "a")

"""Hostile and damaged archives leave no file."""

import gzip
import io
import random
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.configuration.download import Download
from pipeline_lib.downloads.archives import extract
from pipeline_lib.downloads.session import FailedError, Session, StoppedError


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b"x") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, io.BytesIO(content)


def archive(folder: Path, *members: tuple, mode: str = "w") -> Path:
    path = folder / "part_0.tar"
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, content if info.isreg() else None)
    return path


def session(folder: Path, minimum_free_gigabytes: float = 0.0) -> Session:
    values = {"kind": "archives", "urls": "list.txt", "minimum_free_gigabytes": minimum_free_gigabytes}
    return Session(Download.model_validate(values | {"destination": str(folder / "out")}), threading.Event())


def run(folder: Path, path: Path) -> int:
    return extract(path, session(folder))


HOSTILE = {
    "absolute": [member("/tmp/evil.mp4")],
    "climbing": [member("../evil.mp4")],
    "climbing inside": [member("a/../../evil.mp4")],
    "symlink out": [member("link", tarfile.SYMTYPE, "../../evil")],
    "absolute symlink": [member("link", tarfile.SYMTYPE, "/etc/passwd")],
    "through a symlink": [member("link", tarfile.SYMTYPE, ".."), member("link/evil.mp4")],
    "hard link out": [member("link", tarfile.LNKTYPE, "../evil")],
    "symlink inside": [member("inner", tarfile.SYMTYPE, "good.mp4")],
    "hard link inside": [member("inner", tarfile.LNKTYPE, "good.mp4")],
    "device": [member("null", tarfile.CHRTYPE)],
    "pipe": [member("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_member_refuses_the_whole_archive(tmp_path, members):
    path = archive(tmp_path, member("good.mp4"), *members)
    with pytest.raises(FailedError, match=r"refused: .*(link|device|pipe|does not name a file below)"):
        run(tmp_path, path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["out", "part_0.tar"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_sound_archives_arrive_whole(tmp_path, mode):
    members = [member("a.mp4", content=b"1"), member("class one/b.mp4", content=b"2")]
    path = archive(tmp_path, member("class one", tarfile.DIRTYPE), *members, mode=mode)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mp4").write_bytes(b"old")
    assert run(tmp_path, path) == 2
    assert (tmp_path / "out" / "a.mp4").read_bytes() == b"1"
    assert (tmp_path / "out" / "class one" / "b.mp4").read_bytes() == b"2"
    assert not list((tmp_path / "out").glob(".*"))


CONTENT = {f"{index}.mp4": random.Random(index).randbytes(5000) for index in range(8)}
BLOCKS = 1 + -(-5000 // tarfile.BLOCKSIZE)  # of a member: its header and its bytes


def damaged(kind: str, seed: int) -> bytes:
    choose = random.Random(seed)
    buffer = io.BytesIO()
    mode = "w" if kind in ("header", "cut", "no end") else {"bz2 flip": "w:bz2", "xz flip": "w:xz"}.get(kind, "w:gz")
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in CONTENT.items():
            info, file = member(name, content=content)
            tar.addfile(info, file)
    data = bytearray(buffer.getvalue())
    begin = choose.randrange(1, 8) * BLOCKS * tarfile.BLOCKSIZE  # of a member
    if kind.endswith("flip"):
        data[choose.randrange(100, len(data) - 100)] ^= 1 << choose.randrange(8)
    elif kind == "header":
        data[begin + choose.randrange(tarfile.BLOCKSIZE)] ^= 1 << choose.randrange(8)
    elif kind == "cut":
        del data[begin:]
    elif kind == "no end":
        del data[8 * BLOCKS * tarfile.BLOCKSIZE + choose.choice((0, 1, tarfile.BLOCKSIZE)) :]
    else:
        del data[-choose.randrange(1, 20) :]
    return bytes(data)


@pytest.mark.parametrize("kind", ["gz flip", "gz tail", "bz2 flip", "xz flip", "header", "cut", "no end"])
def test_a_damaged_archive_is_refused_whole(tmp_path, kind):
    path = tmp_path / "part_0.tar"
    for seed in range(20):
        path.write_bytes(damaged(kind, seed))
        with pytest.raises(FailedError, match="no sound tar archive"):
            run(tmp_path, path)
        assert not list((tmp_path / "out").iterdir())


def test_an_end_in_the_middle_is_no_end(tmp_path):
    """Zeros where a member was (a power cut leaves them), a second archive behind the first, zeros alone."""
    whole = archive(tmp_path, *[member(name, content=content) for name, content in CONTENT.items()]).read_bytes()
    size = BLOCKS * tarfile.BLOCKSIZE
    for content in (whole[:size] + bytes(size) + whole[2 * size :], whole + whole, bytes(10240), b""):
        for pack in (bytes, gzip.compress):
            (tmp_path / "part_0.tar").write_bytes(pack(content))
            with pytest.raises(FailedError, match="no sound tar archive"):
                run(tmp_path, tmp_path / "part_0.tar")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (tarfile.REGTYPE, 10**18, "no sound tar archive: the header of 'huge.mp4' claims 1000000000000000000 bytes"),
        (tarfile.REGTYPE, 10**11, "no sound tar archive: unexpected end of data"),
        # These would be read into memory.
        (tarfile.XHDTYPE, 10**9, "claims 1000000000 bytes"),
        (tarfile.GNUTYPE_LONGNAME, 10**9, "claims 1000000000 bytes"),
        # This one may hold less than it claims.
        (tarfile.GNUTYPE_SPARSE, 512, "refused: .* sparse"),
    ],
)
def test_a_size_that_an_archive_only_claims_costs_nothing(tmp_path, kind, size, message):
    info = tarfile.TarInfo("huge.mp4")
    info.size, info.type = size, kind
    content = info.tobuf(format=tarfile.GNU_FORMAT) + bytes(2048)
    for pack in (bytes, gzip.compress):
        (tmp_path / "part_0.tar").write_bytes(pack(content))
        with pytest.raises(FailedError, match=message):
            run(tmp_path, tmp_path / "part_0.tar")
    assert not list((tmp_path / "out").iterdir())


def test_nothing_is_written_through_a_link_of_the_destination(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "x").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "b.mp4").symlink_to(tmp_path / "elsewhere" / "b.mp4")
    with pytest.raises(FailedError, match=r"refused: the folder of 'x/y/a.mp4' is reached through a link"):
        run(tmp_path, archive(tmp_path, member("c.mp4"), member("x/y/a.mp4")))
    assert not (tmp_path / "out" / "c.mp4").exists()
    # A link in the place of a file is replaced, not followed.
    assert run(tmp_path, archive(tmp_path, member("b.mp4"))) == 1
    assert (tmp_path / "out" / "b.mp4").read_bytes() == b"x" and not (tmp_path / "out" / "b.mp4").is_symlink()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_stop_and_a_reserve_end_the_extraction(tmp_path):
    path = archive(tmp_path, member("a.mp4"))
    with pytest.raises(StoppedError, match="are free"):
        extract(path, session(tmp_path, 1e9))
    stopped = session(tmp_path)
    stopped.stop.set()
    with pytest.raises(StoppedError):
        extract(path, stopped)
    assert not list((tmp_path / "out").iterdir())


names = st.text(st.sampled_from("ab./\\~"), min_size=1, max_size=12)


@given(
    st.lists(st.tuples(names, st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]), names), max_size=6)
)
def test_whatever_the_names_nothing_lands_outside(tmp_path_factory, members):
    folder = tmp_path_factory.mktemp("any")
    path = archive(folder, *[member(name, kind, target) for name, kind, target in members])
    try:
        run(folder, path)
    except FailedError:
        assert not list((folder / "out").iterdir())
    except OSError:  # a file in the place of a folder
        pass
    assert {p.name for p in folder.iterdir()} == {"part_0.tar", "out"}
    root = (folder / "out").resolve()
    for found in (folder / "out").rglob("*"):
        assert not found.is_symlink() and found.resolve().is_relative_to(root)

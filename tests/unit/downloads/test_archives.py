"""Hostile and damaged archives: nothing of them lands anywhere."""

import io
import os
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.downloads.archives import extract
from pipeline_lib.downloads.failures import DiskFullError, FailedError, StoppedError


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


def run(folder: Path, path: Path) -> int:
    return extract(path, folder / "out", threading.Event(), 0)


HOSTILE = {
    "absolute": [member("/tmp/evil.mp4")],
    "climbing": [member("../evil.mp4")],
    "climbing inside": [member("a/../../evil.mp4")],
    "symlink out": [member("link", tarfile.SYMTYPE, "../../evil")],
    "absolute symlink": [member("link", tarfile.SYMTYPE, "/etc/passwd")],
    "through a symlink": [member("link", tarfile.SYMTYPE, ".."), member("link/evil.mp4")],
    "hard link out": [member("link", tarfile.LNKTYPE, "../evil")],
    "device": [member("null", tarfile.CHRTYPE)],
    "pipe": [member("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_member_refuses_the_whole_archive(tmp_path, members):
    path = archive(tmp_path, member("good.mp4"), *members)
    with pytest.raises(FailedError, match="refused"):
        run(tmp_path, path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["out", "part_0.tar"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_sound_archives_arrive_whole(tmp_path, mode):
    members = [member("a.mp4", content=b"1"), member("class one/b.mp4", content=b"2")]
    path = archive(tmp_path, *members, member("inner", tarfile.SYMTYPE, "a.mp4"), mode=mode)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mp4").write_bytes(b"old")
    assert run(tmp_path, path) == 3
    assert (tmp_path / "out" / "a.mp4").read_bytes() == (tmp_path / "out" / "inner").read_bytes() == b"1"
    assert (tmp_path / "out" / "class one" / "b.mp4").read_bytes() == b"2"
    assert not list((tmp_path / "out").glob(".*"))


def test_truncated_archives_leave_nothing(tmp_path):
    path = archive(tmp_path, *[member(f"{i}.mp4", content=bytes(5000)) for i in range(10)], mode="w:gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FailedError, match="no sound tar archive"):
        run(tmp_path, path)
    assert not list((tmp_path / "out").iterdir())


def test_a_stop_and_a_reserve_end_the_extraction(tmp_path):
    path = archive(tmp_path, member("a.mp4"))
    stop = threading.Event()
    with pytest.raises(DiskFullError, match="are free"):
        extract(path, tmp_path / "out", stop, 1 << 62)
    stop.set()
    with pytest.raises(StoppedError):
        extract(path, tmp_path / "out", stop, 0)
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
    assert {p.name for p in folder.iterdir()} == {"part_0.tar", "out"}
    root = (folder / "out").resolve()
    for found in (folder / "out").rglob("*"):
        assert Path(os.path.realpath(found)).is_relative_to(root)

"""The command line: what runs here, and a message instead of a traceback for whatever it is given."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from pipeline_lib.__main__ import main


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that are none of what commands want, and a working folder that may be written into."""
    monkeypatch.chdir(tmp_path)
    files = {
        "empty": b"",
        "text.txt": b"hello",
        "random.bin": bytes(range(256)),
        "list.json": b"[1, 2]",
        "cut.h5": b"\x89HDF\r\n\x1a\n" + b"0" * 100,
        "headless.safetensors": (8).to_bytes(8, "little") + b"{}      ",
    }
    (tmp_path / "wrong" / "folder").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "wrong" / name).write_bytes(content)
    with h5py.File(tmp_path / "wrong" / "other.h5", "w") as file:
        file["x"] = 1
    names = [*files, "folder", "other.h5", "absent", "text.txt/below"]
    return [str(tmp_path / "wrong" / name) for name in names] + ["/dev/null", "a\0b"]


def commands(path: str) -> Iterator[list[str]]:
    """Every command that reads a path of the user, given this one."""
    yield ["compare", path, path]
    yield ["predictions", path, "--out", "o.csv"]
    yield ["provenance", path]
    yield ["manifest", "check", path]
    yield ["flow", path, "--out", "o.mp4"]
    yield ["flow", "compare", path]
    yield ["weights", "import", "torchvision/s3d", path, "--out", "o.safetensors"]
    yield ["predict", path, "--weights", path]
    yield ["predict", path, "--experiment", "x", "--root", path]
    yield ["export", "x", "--root", path]
    yield ["motion-strength", "--motion", path, "--output", "o"]
    # Each of these reads the whole configuration first, which takes half a second.
    if Path(path).name in ("absent", "folder", "random.bin"):
        yield ["experiments", "--configfile", path]
        yield ["experiments", "--project", path]
        yield ["plan", "--profile", path]
        yield ["results", "demo", "--configfile", path]
        yield ["experiments", "--set", path]


def test_no_wrong_path_ends_in_a_traceback(
    wrong: list[str], repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The configuration is the project's where another path is the wrong one.
    for name in ("config.yaml", "workflow"):
        Path(name).symlink_to(repository / name)
    for path in wrong:
        for command in commands(path):
            status = main(command)
            printed = capsys.readouterr()
            assert status in (1, 2) and (printed.err.strip() or printed.out.strip()), command


@pytest.mark.parametrize("text", ["", "{}", "[]", "x", '{"a": 1}', "null", "1" * 5000])
def test_no_wrong_specification_ends_in_a_traceback(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {
        ("train",): ["--root", "x", "--output", "o"],
        ("evaluate",): ["--root", "x"],
        ("ensemble",): ["--root", "x"],
        ("report",): ["--root", "x", "--output", "o"],
        ("manifest", "build"): ["--output", "o"],
        ("extract-frames",): ["--videos", "x", "--output", "o"],
        ("download",): ["--output", "o"],
    }
    for command, others in places.items():
        assert main([*command, "--specification", text, *others]) == 2, command
        assert capsys.readouterr().err.startswith("error: --specification")


def test_the_version_says_what_computes(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from pipeline_lib.media.ffmpeg import ffmpeg_executable, ffmpeg_version

    assert main(["--version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pipeline_lib ") and f"torch {torch.__version__}" in lines[1]
    assert f"ffmpeg {ffmpeg_version()} ({ffmpeg_executable()})" in lines
    assert lines[-1].startswith("device ")

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_lib.artefacts.atomic import atomic_path, write_json


def test_final_name_appears_only_when_complete(tmp_path: Path) -> None:
    final = tmp_path / "folder" / "artefact.json"
    with atomic_path(final) as temporary:
        temporary.write_text("half")
        assert not final.exists()
        temporary.write_text("whole")
    assert final.read_text() == "whole"
    assert [path.name for path in final.parent.iterdir()] == ["artefact.json"]


def test_failure_keeps_the_earlier_artefact_and_leaves_nothing_behind(tmp_path: Path) -> None:
    final = tmp_path / "artefact.json"
    write_json(final, {"b": 1, "a": [1.5]})
    before = final.read_bytes()
    with pytest.raises(RuntimeError), atomic_path(final) as temporary:
        temporary.write_text("broken")
        raise RuntimeError
    assert final.read_bytes() == before
    assert list(tmp_path.iterdir()) == [final]


def test_a_killed_writer_leaves_no_final_name(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from pipeline_lib.artefacts.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as t:\n"
        "    t.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    final = tmp_path / "artefact"
    with subprocess.Popen([sys.executable, "-c", program, str(final)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.05)
    assert not final.exists()


def test_json_bytes_depend_on_the_value_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "one", {"b": 1, "a": "ü"})
    write_json(tmp_path / "two", {"a": "ü", "b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_artefact_is_as_readable_as_any_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_json(tmp_path / "artefact", 1)
    assert (tmp_path / "artefact").stat().st_mode == (tmp_path / "plain").stat().st_mode

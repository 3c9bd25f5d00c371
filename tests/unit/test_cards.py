"""The GPUs of one machine are shared out: each job has its own, and a killed job gives its own back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from graphics_cards import pretend_cards

from pipeline_lib import cards
from pipeline_lib.errors import UserError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with three cards: what the driver's program prints there, and a folder for the locks."""
    pretend_cards(tmp_path, monkeypatch, "0", "1", "2")
    return tmp_path


def start(count: int, command: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "pipeline_lib.cards", str(count), "sh", "-c", command]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_driver_or_the_user_says_which_cards_there_are(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cards.cards() == ["0", "1", "2"]
    for named, visible in (("2,1", ["2", "1"]), ("", []), ("GPU-8932f937,-1,2", ["GPU-8932f937"]), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert cards.cards() == visible
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(machine))
    assert cards.cards() == []


def test_no_two_jobs_have_a_card_at_the_same_time(machine: Path) -> None:
    stamp = 'printf "%s %s\\n" "$CUDA_VISIBLE_DEVICES" "$(date +%s%N)"'
    jobs = [start(count, f"{stamp}; sleep 0.3; {stamp}") for count in (1, 2, 1, 3, 1, 2, 1)]
    spans: dict[str, list[tuple[int, int]]] = {}
    for job, count in zip(jobs, (1, 2, 1, 3, 1, 2, 1), strict=True):
        text, errors = job.communicate(timeout=60)
        assert job.returncode == 0, errors
        (names, begin), (_, end) = (line.split() for line in text.splitlines())
        assert len(names.split(",")) == count and f"GPU {names.replace(',', ', ')} of 0, 1, 2" in errors
        for card in names.split(","):
            spans.setdefault(card, []).append((int(begin), int(end)))
    assert spans.keys() == {"0", "1", "2"} and sum(map(len, spans.values())) == 11
    for taken in spans.values():
        ordered = sorted(taken)
        assert all(first[1] <= second[0] for first, second in zip(ordered, ordered[1:], strict=False))


def test_a_card_is_held_until_the_last_child_of_a_killed_job_has_ended(machine: Path) -> None:
    job = start(3, "sleep 2 & echo begun; wait")
    assert job.stdout is not None and job.stdout.readline() == "begun\n"
    job.send_signal(signal.SIGKILL)
    job.wait()
    began = time.monotonic()
    waited = start(1, "exit 7")
    waited.communicate(timeout=60)
    assert waited.returncode == 7 and time.monotonic() - began > 1


def test_a_job_knows_its_part_of_the_cores(machine: Path) -> None:
    text, _ = start(2, "echo $PIPELINE_CORES").communicate(timeout=60)
    assert int(text) == max(1, len(os.sched_getaffinity(0)) * 2 // 3)
    with pytest.raises(UserError, match=r"needs 4 GPUs, but 3 can be used here \(0, 1, 2\): lower hardware.gpus_per"):
        cards.hold(4, cards.cards())

"""Pickles of tubes that crash an interpreter or ask for terabytes: one message each."""

import io
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import UserError
from pipeline_lib.manifests import tubes
from pipeline_lib.manifests.pool import run_alone
from pipeline_lib.manifests.tubes import load_tubes
from pipeline_lib.unpickling import ArraysUnpickler

TUBES = {
    "labels": ["run", "sit"],
    "gttubes": {"run/a": {0: [np.arange(20, dtype=np.float32).reshape(4, 5)]}},
    "train_videos": [["run/a"]],
    "test_videos": [[]],
    "resolution": {"run/a": (240, 320)},
}
NESTED = b"\x80\x02)" + b"\x85" * 3_000_000
HOSTILE = {
    "nested tuples": NESTED + b".",
    "nested tuples as a key": b"\x80\x02}" + NESTED[2:] + b"K\x01s.",
    "nested lists as labels": b"\x80\x02}X\x06\x00\x00\x00labels" + b"]" * 100_000 + b"a" * 99_999 + b"s.",
    "an array of 8 TB": b"cnumpy\nndarray\n((I1000000000000\ntVf8\ntR.",
    "a frame of 2^62 bytes": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b".",
    "text of 2^62 bytes": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x.",
    "a bytearray of 10 TB": b"\x80\x04cbuiltins\nbytearray\n(L10000000000000L\ntR.",
    "a memo of 2^31": b"\x80\x04Nr\xff\xff\xff\x7f.",
    "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "nothing": b"",
    "a list": pickle.dumps([1, 2]),
    "numbers for names": pickle.dumps(TUBES | {"labels": [1, 2]}),
    "text for boxes": pickle.dumps(TUBES | {"gttubes": {"run/a": {0: ["x"]}}}),
    "a box of one number": pickle.dumps(TUBES | {"gttubes": {"run/a": {0: [np.zeros(3)]}}}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_one_message(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.pkl"
    path.write_bytes(HOSTILE[name])
    monkeypatch.setattr(tubes, "_SECONDS", 60.0)
    with pytest.raises(UserError, match=r"b\.pkl (cannot be read as ground-truth tubes|lacks )") as caught:
        load_tubes(path)
    assert len(str(caught.value)) < 600


# Each case is a process otherwise, of a third of a second.
MANY = (
    "import sys; from pathlib import Path; from pipeline_lib.manifests import tubes\n"
    "for path in sorted(Path(sys.argv[1]).iterdir()): tubes.print_tubes(str(path))\n"
)


def test_a_sound_pickle_of_every_protocol_gives_the_tubes(tmp_path: Path) -> None:
    path = tmp_path / "b.pkl"
    for protocol in (0, 2, 4, 5):
        path.write_bytes(pickle.dumps(TUBES, protocol=protocol))
        assert load_tubes(path)["gttubes"] == {"run/a": {0: [np.arange(20.0).reshape(4, 5).tolist()]}}


@pytest.mark.parametrize("num_cases", [1_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_random_damage_is_a_message_or_the_tubes(tmp_path: Path, num_cases: int) -> None:
    draw = random.Random(0)
    for case in range(num_cases):
        damaged = bytearray(pickle.dumps(TUBES, protocol=(0, 2, 4, 5)[case % 4]))
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / f"{case:06d}").write_bytes(damaged[: draw.randint(1, len(damaged))] if case % 5 == 0 else damaged)
    done = run_alone(MANY, [str(tmp_path)], 3600)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(answers) == num_cases, done.stderr[-2000:]
    assert all("problem" in answer or "missing" in answer for answer in answers)
    assert {"problem" in answer for answer in answers} == {True, False}


def test_numpys_array_class_cannot_be_called() -> None:
    with pytest.raises(pickle.UnpicklingError, match="array of an unusual kind"):
        ArraysUnpickler(io.BytesIO(HOSTILE["an array of 8 TB"])).load()

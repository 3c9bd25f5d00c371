"""What a kill or a power cut leaves of work in progress is resumed as a correct prefix, or not at all."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.artefacts.journal import Journal

ITEMS = [(f"v{index}", bytes([index]) * (7 * index % 40)) for index in range(8)]


def _fill(folder: Path, items: list[tuple[str, bytes]] = ITEMS, origin: str = "o") -> None:
    with Journal(folder / "a.h5", origin) as journal:
        for id, content in items:
            journal.append({"id": id}, [content[:3], content[3:]])


def _held(journal: Journal) -> list[tuple[str, bytes]]:
    blob, position, found = journal.blob.read_bytes(), 0, []
    for entry in journal.entries:
        found.append((entry.item["id"], blob[position : position + entry.num_bytes]))
        position += entry.num_bytes
    assert position == journal.num_bytes
    return found


def test_items_come_back_in_order_with_their_bytes(tmp_path: Path) -> None:
    _fill(tmp_path)
    with Journal(tmp_path / "a.h5", "o") as journal:
        assert journal.num_resumed == len(ITEMS) and _held(journal) == ITEMS
        journal.append({"id": "more"}, [b"x"])
        assert journal.num_resumed == len(ITEMS) and _held(journal) == [*ITEMS, ("more", b"x")]
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_work_of_another_origin_is_thrown_away(tmp_path: Path) -> None:
    _fill(tmp_path)
    with Journal(tmp_path / "a.h5", "p") as journal:
        assert journal.entries == [] and journal.blob.stat().st_size == 0
    with Journal(tmp_path / "a.h5", "o") as journal:
        assert journal.entries == []


def test_entries_without_bytes_can_be_forgotten(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.h5", "o") as journal:
        journal.append({"id": "a"}, [b"aa"])
        journal.append({"id": "bad", "reason": "torn"})
        journal.append({"id": "b"}, [b"b"])
        journal.forget(lambda entry: "reason" in entry.item)
        journal.append({"id": "c"}, [b"cc"])
    with Journal(tmp_path / "a.h5", "o") as journal:
        assert _held(journal) == [("a", b"aa"), ("b", b"b"), ("c", b"cc")]


def test_bytes_of_an_item_that_failed_halfway_are_written_over(tmp_path: Path) -> None:
    def broken() -> object:
        yield b"half"
        raise RuntimeError("the decoder died")

    with Journal(tmp_path / "a.h5", "o") as journal:
        journal.append({"id": "a"}, [b"aa"])
        with pytest.raises(RuntimeError):
            journal.append({"id": "bad"}, broken())  # type: ignore[arg-type]
        journal.append({"id": "b"}, [b"b"])
        assert [entry.item["id"] for entry in journal.entries] == ["a", "b"]
    with Journal(tmp_path / "a.h5", "o") as journal:
        assert _held(journal) == [("a", b"aa"), ("b", b"b")]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_a_power_cut_leaves_is_a_correct_prefix(data: st.DataObject) -> None:
    """The last writes to the two files reach the disk in any order: torn, as zeros, or not at all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _fill(folder)
        part = folder / ".a.h5.part"
        safe = data.draw(st.integers(0, len(ITEMS)), label="items that are on the disk")
        lines = (part / "journal").read_bytes().splitlines(keepends=True)
        kept = {"blob": sum(len(content) for _, content in ITEMS[:safe]), "journal": sum(map(len, lines[:safe]))}
        for file, first in kept.items():
            content = bytearray((part / file).read_bytes())
            for _ in range(data.draw(st.integers(0, 3), label=f"damages of {file}")):
                if first >= len(content):
                    break
                start = data.draw(st.integers(first, len(content) - 1), label="from")
                stop = data.draw(st.integers(start + 1, len(content)), label="to")
                damage = data.draw(st.sampled_from(["cut", "zero", "swap"]), label="how")
                if damage == "cut":
                    del content[start:]
                elif damage == "zero":
                    content[start:stop] = bytes(stop - start)
                else:
                    middle = (start + stop) // 2
                    content[start:stop] = content[middle:stop] + content[start:middle]
            (part / file).write_bytes(content)
        if data.draw(st.booleans(), label="whole lines in another order"):
            left = (part / "journal").read_bytes().splitlines(keepends=True)
            late = data.draw(st.permutations(left[safe:]))
            (part / "journal").write_bytes(b"".join(left[:safe] + list(late)))
        with Journal(folder / "a.h5", "o") as journal:
            held = _held(journal)
            assert held == ITEMS[: len(held)] and len(held) >= safe
            assert journal.blob.stat().st_size == journal.num_bytes
            for id, content in ITEMS[len(held) :]:
                journal.append({"id": id}, [content])
        with Journal(folder / "a.h5", "o") as journal:
            assert _held(journal) == ITEMS

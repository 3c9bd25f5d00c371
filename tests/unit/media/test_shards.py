"""Packed shards: what goes in comes out, whatever the order and wherever a kill fell."""

import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.errors import UserError
from pipeline_lib.media.shards import Shard, ShardPart

VIDEOS = st.dictionaries(
    st.text(alphabet="ab-_ é", min_size=1, max_size=4),
    st.lists(st.binary(min_size=1, max_size=40), min_size=1),
    max_size=6,
)


def _write(
    path: Path, videos: dict[str, list[bytes]], order: list[str], rejected: dict[str, str] | None = None
) -> None:
    with ShardPart(path, "digest") as part:
        for id in order:
            part.append(id, videos[id], 10, 20, 25.0)
        for id, reason in (rejected or {}).items():
            part.reject(id, reason)
        part.finish({"made": "here"}, [*sorted(videos), *sorted(rejected or {})])


@settings(max_examples=40, deadline=None)
@given(VIDEOS, st.randoms(use_true_random=False))
def test_round_trip_and_equal_bytes_in_any_order(videos: dict[str, list[bytes]], random: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one.h5", Path(folder) / "two.h5"
        order = sorted(videos)
        _write(one, videos, order)
        random.shuffle(order)  # type: ignore[attr-defined]
        _write(two, videos, order)
        assert one.read_bytes() == two.read_bytes()
        shard = Shard(one)
        assert [video.id for video in shard.videos] == sorted(videos)
        counts = {"videos": len(videos), "rejected": 0}
        assert shard.record == {"made": "here", "content": shard.record["content"], "counts": counts}
        assert shard.rejected == {}
        first = 0
        for position, video in enumerate(shard.videos):
            frames = videos[video.id]
            assert (video.first_frame, video.num_frames) == (first, len(frames))
            assert (video.height, video.width, video.frames_per_second) == (10, 20, 25.0)
            assert [bytes(frame) for frame in shard.read(position, 0, len(frames))] == frames
            assert [bytes(frame) for frame in shard.read(position, len(frames) - 1, len(frames))] == frames[-1:]
            assert shard.index[video.id] == position
            first += len(frames)
        shard.close()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_part_cut_anywhere_goes_on_and_ends_with_the_same_bytes(data: st.DataObject) -> None:
    videos = {f"v{i}": [bytes([i]) * (5 + j) for j in range(3)] for i in range(4)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "whole.h5", videos, sorted(videos), {"w": "bad"})
        final = folder / "cut.h5"
        with ShardPart(final, "digest") as part:
            part.reject("w", "bad")
            for id in ("v2", "v0", "v3"):
                part.append(id, videos[id], 10, 20, 25.0)
        # A kill leaves any prefix of the journal, and a blob at least as long as the journal's last line says.
        journal = folder / ".cut.h5.part" / "journal"
        content = journal.read_bytes()
        journal.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        with open(folder / ".cut.h5.part" / "blob", "ab") as blob:
            blob.write(b"torn" * data.draw(st.integers(0, 3)))
        with ShardPart(final, "digest") as part:
            assert part.resumed == len(part.done) == journal.read_bytes().count(b"\n")
            if "w" not in part.done:
                part.reject("w", "bad")
            for id in sorted(set(videos) - part.done):
                part.append(id, videos[id], 10, 20, 25.0)
            part.finish({"made": "here"}, [*sorted(videos), "w"])
        assert final.read_bytes() == (folder / "whole.h5").read_bytes()
        assert not (folder / ".cut.h5.part").exists()
        assert Shard(final).rejected == {"w": "bad"}


def test_a_part_of_another_origin_is_not_resumed(tmp_path: Path) -> None:
    with ShardPart(tmp_path / "a.h5", "one") as part:
        part.append("v", [b"x"], 1, 1, 25.0)
    with ShardPart(tmp_path / "a.h5", "one") as part:
        assert part.done == {"v"}
    with ShardPart(tmp_path / "a.h5", "two") as part:
        assert part.done == set()


def test_nothing_has_the_final_name_before_the_end(tmp_path: Path) -> None:
    final = tmp_path / "a.h5"
    with ShardPart(final, "one") as part:
        part.append("v", [b"x"], 1, 1, 25.0)
        assert not final.exists()
        part.finish({}, ["v"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_reading_outside_a_video_and_reading_what_is_no_shard(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5", {"v": [b"x", b"y"]}, ["v"])
    shard = Shard(tmp_path / "a.h5")
    for start, stop in ((0, 3), (-1, 1), (1, 1)):
        with pytest.raises(IndexError, match="of v, which has 2"):
            shard.read(0, start, stop)
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    for name, text in (("b.h5", r"is damaged: it cannot be read.*Delete it"), ("absent.h5", "is missing: the rules")):
        with pytest.raises(UserError, match=text):
            Shard(tmp_path / name).videos  # noqa: B018


def test_a_shard_crosses_to_another_process_without_its_handle(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5", {"v": [b"x", b"yy"]}, ["v"])
    shard = Shard(tmp_path / "a.h5")
    assert bytes(shard.read(0, 1, 2)[0]) == b"yy"
    again = pickle.loads(pickle.dumps(shard))
    assert bytes(again.read(0, 1, 2)[0]) == b"yy"
    assert np.array_equal(again.offsets, [0, 1, 3])


def test_the_file_holds_no_time(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5", {"v": [b"x"]}, ["v"])
    time.sleep(1.1)
    _write(tmp_path / "b.h5", {"v": [b"x"]}, ["v"])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_too_many_rejects_fail_the_shard_and_are_tried_again(tmp_path: Path) -> None:
    final = tmp_path / "a.h5"
    with ShardPart(final, "one") as part:
        part.append("v", [b"x"], 1, 1, 25.0)
        part.reject("w", "missing: the disk is away")
        part.check_rejects(2, 0.1, "key")  # one bad video never fails a shard
        part.reject("u", "undecodable")
        part.check_rejects(3, 0.7, "key")
        with pytest.raises(
            UserError, match=r"2 of 3 videos cannot be used \(67%; key allows 50%\)(.|\n)*the disk is away"
        ):
            part.check_rejects(3, 0.5, "key")
    assert not final.exists()
    with ShardPart(final, "one") as part:
        assert part.done == {"v"} and part.rejected == {}
        part.append("w", [b"y"], 1, 1, 25.0)
        part.append("u", [b"z"], 1, 1, 25.0)
        part.check_rejects(3, 0.0, "key")
        part.finish({}, ["u", "v", "w"])
    assert [video.id for video in Shard(final).videos] == ["u", "v", "w"]

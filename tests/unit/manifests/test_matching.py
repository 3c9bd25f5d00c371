"""Listed videos against what lies on disk, and reduced data sets."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.configuration.data import Filter
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.filters import apply_filter, filter_identity
from pipeline_lib.manifests.matching import FileIndex, match, split_ending
from pipeline_lib.manifests.schema import ListedVideo


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _video(id: str, label: str = "run", names: tuple[str, ...] = (), subset: str = "train") -> ListedVideo:
    return ListedVideo(id, (label,), (subset,), names or (id,))


def test_layouts_endings_and_case(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "train/-aaaaaaaaaa_000000_000010.mp4",
        "val/air drumming/AbCdEfGhIjK_000000_000010.mkv",
        "val/air_drumming/abcdefghijk_000000_000010.webm",
        "val/air_drumming/._zzzzzzzzzzz_000000_000010.mp4",
        "val/air_drumming/zzzzzzzzzzz_000000_000010.mp4.part",
    )
    index = FileIndex([str(tmp_path)])
    found = match(
        [
            _video("-aaaaaaaaaa_000000_000010"),
            _video("AbCdEfGhIjK_000000_000010"),
            _video("abcdefghijk_000000_000010"),
            _video("-aaaaaaaaaa_000010_000020"),
            _video("zzzzzzzzzzz_000000_000010"),
        ],
        index,
    )
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == [
        "train/-aaaaaaaaaa_000000_000010.mp4",
        "val/air drumming/AbCdEfGhIjK_000000_000010.mkv",
        "val/air_drumming/abcdefghijk_000000_000010.webm",
        "",
        "",
    ]


def test_the_folder_named_like_the_label_wins_then_the_first_root(tmp_path: Path) -> None:
    _touch(tmp_path, "a/jump rope/x.mp4", "a/run/x.mp4", "b/y.mp4", "c/y.mp4")
    index = FileIndex([str(tmp_path / name) for name in ("a", "c", "b")])
    assert index.find("x", ["jump rope"]) == f"{tmp_path}/a/jump rope/x.mp4"
    assert index.find("x", ["run"]) == f"{tmp_path}/a/run/x.mp4"
    assert index.find("y") == f"{tmp_path}/c/y.mp4"


def test_a_relative_path_matches_as_a_whole(tmp_path: Path) -> None:
    _touch(tmp_path, "deep/a/1.mp4", "b/1.mp4")
    index = FileIndex([str(tmp_path)])
    assert index.find("b/1.mp4") == f"{tmp_path}/b/1.mp4"
    assert index.find("a/1.avi") == f"{tmp_path}/deep/a/1.mp4"
    assert index.find("c/1.mp4") is None
    assert index.find(f"{tmp_path}/b/1.mp4") == f"{tmp_path}/b/1.mp4"


def test_replacements_match_by_name_or_by_a_unique_youtube_id(tmp_path: Path) -> None:
    _touch(tmp_path, "videos/aaaaaaaaaaa_000000_000010.mp4", "videos/ccccccccccc_000000_000010.mp4")
    _touch(
        tmp_path,
        "new/aaaaaaaaaaa_000001_000011.mp4",
        "new/bbbbbbbbbbb.mp4",
        "new/bbbbbbbbbbb_2.mp4",
        "new/ccccccccccc.mp4",
    )
    videos = [
        _video("aaaaaaaaaaa_000000_000010"),
        _video("bbbbbbbbbbb_000000_000010"),
        _video("ccccccccccc_000000_000010"),
        _video("ccccccccccc_000010_000020"),
    ]
    found = match(videos, FileIndex([str(tmp_path / "videos")]), FileIndex([str(tmp_path / "new")]))
    # Two replacements of b and two videos of c: neither is unique.
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == [
        "new/aaaaaaaaaaa_000001_000011.mp4",
        "",
        "videos/ccccccccccc_000000_000010.mp4",
        "",
    ]


@given(st.text(alphabet="ab.-_", min_size=1))
def test_split_ending_puts_the_name_together_again(name: str) -> None:
    stem, ending = split_ending(name)
    assert stem + ending == name and stem


VIDEOS = [
    _video(f"{letter * 11}_{start:06d}_{start + 10:06d}", label, subset=subset)
    for letter, label in zip("abcdefgh", ["run", "jump"] * 4, strict=True)
    for start, subset in ((0, "train"), (10, "train"), (20, "validation"))
]


def test_id_list_takes_video_ids_and_youtube_ids(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(f"# October 2018\n{'a' * 11}\n{'b' * 11}_000010_000020\n{'c' * 11}_000020_000030.mp4\n")
    kept = apply_filter(VIDEOS, Filter(ids=str(path)))
    assert [video.id[0] + video.id[-6:] for video in kept] == ["a000010", "a000020", "a000030", "b000020", "c000030"]
    before = filter_identity(Filter(ids=str(path)))
    path.write_text("a" * 11)
    assert filter_identity(Filter(ids=str(path))) != before
    path.write_text("nothing")
    with pytest.raises(UserError, match="leaves no video"):
        apply_filter(VIDEOS, Filter(ids=str(path)))


def test_class_list(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("jump\n")
    assert {video.labels for video in apply_filter(VIDEOS, Filter(classes=str(path)))} == {("jump",)}
    path.write_text("jump\nfly\n")
    with pytest.raises(UserError, match="fly"):
        apply_filter(VIDEOS, Filter(classes=str(path)))


def _classes(sizes: dict[str, int], validation: int = 2) -> list[ListedVideo]:
    return [
        _video(f"{label}{number:03d}_{subset}", label, subset=subset)
        for label, size in sizes.items()
        for subset, count in (("train", size), ("validation", validation))
        for number in range(count)
    ]


def test_the_largest_classes_are_counted_in_the_training_list_and_ties_go_to_the_first_name() -> None:
    videos = _classes({"zumba": 9, "archery": 5, "bowling": 5, "curling": 3}) + _classes({"curling": 0}, validation=40)
    for count, expected in ((1, {"zumba"}), (2, {"zumba", "archery"}), (3, {"zumba", "archery", "bowling"})):
        for order in (videos, videos[::-1]):
            kept = apply_filter(order, Filter(largest_classes=count))
            assert {video.labels[0] for video in kept} == expected
            assert {video.subsets[0] for video in kept} == {"train", "validation"}
    assert filter_identity(Filter(largest_classes=3)) != filter_identity(Filter(largest_classes=2))
    with pytest.raises(UserError, match="largest_classes: 5 classes are wanted, but only 4"):
        apply_filter(videos, Filter(largest_classes=5))


def test_mini_kinetics_by_the_rule_and_by_the_published_ids(tmp_path: Path) -> None:
    # In small: the two largest of three classes, at most four training videos and one validation video of each.
    rule = Filter(largest_classes=2, per_class={"train": 4, "validation": 1})
    videos = _classes({"archery": 6, "bowling": 8, "curling": 5})
    kept = apply_filter(videos, rule)
    assert [video.labels[0] for video in kept].count("archery") == 5 and len(kept) == 10
    # Another draw of the authors': the rule is still set and drops none of it.
    others = apply_filter(videos, rule.model_copy(update={"seed": 7}))
    assert others != kept
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(video.id for video in others))
    assert apply_filter(videos, rule.model_copy(update={"ids": str(path)})) == others


def test_counts_are_drawn_with_a_seed_whatever_the_order() -> None:
    settings = Filter(per_class={"train": 3, "validation": 1}, seed=1)
    drawn = apply_filter(VIDEOS, settings)
    assert sorted((video.labels[0], video.subsets[0]) for video in drawn) == sorted(
        [(label, subset) for label in ("run", "jump") for subset in ("train",) * 3 + ("validation",)]
    )
    assert {video.id for video in apply_filter(VIDEOS[::-1], settings)} == {video.id for video in drawn}
    assert {video.id for video in apply_filter(VIDEOS, settings.model_copy(update={"seed": 2}))} != {
        c.id for c in drawn
    }
    total = apply_filter(VIDEOS, Filter(total={"train": 5}))
    assert [video.subsets[0] for video in total].count("train") == 5
    assert [video.subsets[0] for video in total].count("validation") == 8


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    _touch(tmp_path, "elsewhere/run/1.mp4", "videos/jump/2.mp4", "videos/lost+found/3.mp4")
    (tmp_path / "videos/run").symlink_to(tmp_path / "elsewhere/run")
    (tmp_path / "videos/jump/all").symlink_to(tmp_path / "videos")
    index = FileIndex([str(tmp_path / "videos")])
    assert index.find("1") == f"{tmp_path}/videos/run/1.mp4" and index.find("2") == f"{tmp_path}/videos/jump/2.mp4"
    assert index.num_files == 2

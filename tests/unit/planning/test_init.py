"""``init``: what it proposes fits what lies in the folder, and what it writes is a configuration."""

import os
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from pipeline_lib.__main__ import main
from pipeline_lib.cli import init
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.importers import read_listing
from pipeline_lib.manifests.schema import ListedVideo
from pipeline_lib.manifests.source_groups import RULES, recognised
from pipeline_lib.manifests.tables import group_of
from pipeline_lib.planning.own_videos import Measured, OwnVideos, look, measure, motion_quantile
from pipeline_lib.planning.plan import load_plan
from pipeline_lib.planning.proposal import TEACHERS, Machine, propose
from pipeline_lib.planning.proposal_file import name_for, overlay_text
from pipeline_lib.planning.sharding import shards_for

LAPTOP, SERVER = Machine(2, False), Machine(32, True)


def sample(media: Path) -> list[Path]:
    """The twelve shortest-named clips of two gestures, six rounds of each."""
    folder = media / "egogestar" / "videos"
    return [folder / label / f"{label}_{number:02d}.mp4" for label in ("left", "right") for number in range(1, 7)]


@pytest.fixture(scope="module")
def twelve(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips in two folders."""
    folder = tmp_path_factory.mktemp("own") / "gestures"
    for path in sample(media):
        place = folder / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place) if path.stat().st_dev == folder.stat().st_dev else shutil.copyfile(path, place)
    return folder


@pytest.fixture(scope="module")
def own(twelve: Path) -> OwnVideos:
    return look(twelve)


@pytest.fixture(scope="module")
def measured(own: OwnVideos) -> tuple[Measured, list[Path]]:
    return measure(own, 2)


def lists_of_groups(videos: tuple[ListedVideo, ...]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for video in videos:
        found[video.group or video.id].add(video.subsets[0])
    return found


def lists_of_classes(videos: tuple[ListedVideo, ...]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for video in videos:
        found[video.labels[0]].add(video.subsets[0])
    return found


@pytest.mark.media
@pytest.mark.parametrize(
    ("folder", "num_videos", "num_sources", "said"),
    [
        ("egogestar", 217, 22, "the number at the end"),
        ("surveillance_fights", 224, 31, "column `group`"),
        ("jhmdb/videos", 928, 331, "HMDB51"),
    ],
)
def test_no_source_is_divided_and_both_lists_have_every_class(
    media: Path, folder: str, num_videos: int, num_sources: int, said: str
) -> None:
    own = look(media / folder)
    assert (len(own.videos), own.num_sources) == (num_videos, num_sources)
    assert said in own.grouping
    assert all(len(lists) == 1 for lists in lists_of_groups(own.videos).values())
    assert all(lists == {"train", "validation"} for lists in lists_of_classes(own.videos).values())
    assert 0.1 <= own.count("validation") / num_videos <= 0.35


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["Diving/v_Diving_g01_c01", "Diving/v_Diving_g01_c02", "Diving/v_Diving_g02_c01"], 2),
        (["run/person01_run_d1", "run/person01_run_d2", "run/person12_run_d1"], 2),
        (["a/S001C001P003R001A001", "a/S001C002P003R001A001", "a/S001C001P008R001A001"], 2),
        (["a/aBsEiLiNg01_000000_000010", "a/aBsEiLiNg01_000010_000020", "a/pAnCaKe_-03_000000_000010"], 2),
        (["a/lobby_part1", "a/lobby_part2", "a/yard_part1", "a/yard_part2"], 2),
        # A class of one source could not be in both lists; counters say nothing of sources.
        (["a/v_A_g01_c01", "a/v_A_g01_c02"], None),
        (["a/one", "a/two", "a/three"], None),
        (["a/clip001", "a/clip002", "b/clip103", "b/clip104"], None),
    ],
)
def test_names_tell_their_sources_or_nothing_is_claimed(names: list[str], groups: int | None) -> None:
    videos = [ListedVideo(name, (name.split("/")[0],), ("",), (name,)) for name in names]
    rule = recognised(videos)
    assert (rule is None) == (groups is None)
    if rule is not None:
        assert rule in RULES and len({group_of(name, rule.pattern) for name in names}) == groups


@pytest.mark.media
@pytest.mark.parametrize("machine", [LAPTOP, SERVER], ids=["laptop", "server"])
def test_every_number_fits_what_was_measured(
    own: OwnVideos, measured: tuple[Measured, list[Path]], machine: Machine
) -> None:
    found, files = measured
    # Measured again, by reading the files whole with another function.
    for path, frames, short in zip(files, found.num_frames, found.short_sides, strict=True):
        with av.open(str(path)) as container:
            pictures = [(frame.height, frame.width) for frame in container.decode(video=0)]
        assert (len(pictures), min(pictures[0])) == (frames, short)
    seen = motion_quantile(files, 64, None, 2)
    proposal = propose(own, found, lambda side, rate: seen, "flow", "random", machine)
    assert proposal.crop <= proposal.short_side and proposal.crop <= np.quantile(found.short_sides, 0.1)
    assert proposal.frames_per_second is None or proposal.frames_per_second <= 1.02 * np.quantile(found.rates, 0.1)
    stored = found.seconds * (proposal.frames_per_second or found.rates)
    assert proposal.num_frames * proposal.stride <= np.quantile(stored, 0.25)
    assert 1.25 * seen <= proposal.bound < 4 * max(seen, 1)
    assert proposal.batch <= own.count("train") and proposal.num_shards == shards_for(12) == 2
    assert abs(proposal.steps * proposal.batch - proposal.epochs * own.count("train")) <= proposal.batch
    assert proposal.horizontal_flip == "forbidden"


@pytest.mark.parametrize(
    ("sides", "rates", "frames", "expected"),
    [
        (
            [256] * 4,
            [25.0] * 4,
            [250] * 4,
            {"short_side": 256, "frames_per_second": None, "num_frames": 64, "stride": 1},
        ),
        ([256] * 4, [60.0] * 4, [600] * 4, {"frames_per_second": 30.0, "num_frames": 64}),
        (
            [120] * 4,
            [10, 30, 30, 30],
            [40, 90, 90, 90],
            {"short_side": 128, "frames_per_second": 15.0, "num_frames": 32},
        ),
        ([48] * 4, [25.0] * 4, [12] * 4, {"short_side": 64, "num_frames": 8, "stride": 1, "protocol": "one_clip"}),
    ],
)
def test_sizes_and_rates_follow_the_videos(
    own: OwnVideos, sides: list[int], rates: list[float], frames: list[int], expected: dict[str, object]
) -> None:
    found = Measured(np.array(sides), np.array(rates, float), np.array(frames), {})
    proposal = propose(own, found, lambda side, rate: 3.0, "flow", "random", SERVER)
    assert {key: getattr(proposal, key) for key in expected} == expected


@pytest.mark.media
@pytest.mark.parametrize("start", ["random", "imagenet", "torchvision/s3d", "torchvision/mvit_v2_s", "slim/s3dg"])
def test_what_is_written_is_a_configuration_that_means_the_same(
    own: OwnVideos, measured: tuple[Measured, list[Path]], start: str, repository: Path, tmp_path: Path
) -> None:
    found, _ = measured
    proposal = propose(own, found, lambda side, rate: 3.0, "farneback", start, LAPTOP)
    path = tmp_path / "my.yaml"
    path.write_text(overlay_text("gestures", own, found, proposal, LAPTOP, path, repository))
    plan = load_plan(repository, [path])
    assert plan.selected == "gestures" and plan.datasets_behind("gestures") == ["gestures"]
    dataset, student = plan.configuration.datasets["gestures"], plan.run("d3d_gestures")
    assert {video.id: video.subsets for video in read_listing(dataset).videos} == {
        video.id: video.subsets for video in own.videos
    }
    recipe = student.recipe
    sampling = recipe.sampling
    assert (sampling.num_frames, sampling.stride, sampling.crop) == (
        proposal.num_frames,
        proposal.stride,
        proposal.crop,
    )
    assert (recipe.steps, recipe.global_batch, dataset.num_shards) == (proposal.steps, proposal.batch, 2)
    assert student.trained.model.name == proposal.student.name
    assert plan.configuration.motions["gestures_flow"].bound == 4.0
    assert student.teacher is not None and student.teacher.experiment == "teacher_gestures"
    assert set(yaml.safe_load(path.read_text())["targets"]) == {"gestures"}


@pytest.mark.media
def test_a_file_is_written_once_and_only_replaced_when_that_is_said(
    twelve: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my.yaml"
    command = ["init", str(twelve), "--out", str(out), "--project", str(repository)]
    out.write_text("mine: edited\n")
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err and out.read_text() == "mine: edited\n"
    assert main([*command, "--force"]) == 0
    assert f"snakemake --cores all report --configfile {out}" in capsys.readouterr().out
    assert load_plan(repository, [out]).datasets_behind("gestures") == ["gestures"]


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no video")
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("names", "more", "told"),
    [
        ((), (), "there is no video in it"),
        (("one.mp4", "two.mp4"), (), "in no folder per class"),
        (("walk/one.mp4", "walk/two.mp4"), (), "all 2 videos are of one class (walk)"),
        (
            ("walk/one.mp4", "walk/two.mp4", "run/three.mp4", "run/four.mp4"),
            (),
            "none of the 4 videos that were tried can be used (4 × not a video)",
        ),
        (("walk/one.mp4", "run/two.mp4"), ("--start", "torchvision/s3dd"), "torchvision/s3d"),
        (("walk/one.mp4", "run/two.mp4"), ("--start", "torchvision/resnet18"), "no such weights"),
        (("walk/one.mp4", "run/two.mp4"), ("--list", "absent.csv"), "absent.csv: there is no such file"),
        (("walk/one.mp4", "run/two.mp4"), ("--name", "demo"), "the configuration has baseline_demo already"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(
    names: tuple[str, ...],
    more: tuple[str, ...],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    repository: Path,
) -> None:
    folder, out = tree(tmp_path / "own", *names), tmp_path / "my.yaml"
    assert main(["init", str(folder), "--out", str(out), "--project", str(repository), *more]) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_a_file_and_an_absent_folder_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("")
    with pytest.raises(UserError, match="is a file"):
        look(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="there is no such folder"):
        look(tmp_path / "absent")


def test_a_list_without_validation_is_refused(tmp_path: Path) -> None:
    folder = tree(tmp_path / "own", "walk/one.mp4", "run/two.mp4")
    (folder / "list.csv").write_text("path,label,subset\nwalk/one.mp4,walk,train\nrun/two.mp4,run,train\n")
    with pytest.raises(UserError, match=r"list\.csv: no video is for validation"):
        look(folder)


def test_the_command_offers_the_teachers_that_can_be_proposed() -> None:
    assert set(init.TEACHERS) == set(TEACHERS)


def test_a_name_is_one_that_the_configuration_takes(tmp_path: Path) -> None:
    assert name_for(tmp_path / "My Clips (2024)", ()) == "my_clips_2024"
    assert name_for(tmp_path / "golf" / "videos", ()) == "golf"
    assert name_for(tmp_path / "demo", {"d3d_demo"}) == "demo_2"


def test_unequal_videos_need_no_flow_to_be_proposed_for(own: OwnVideos) -> None:
    found = Measured(np.array([64]), np.array([25.0]), np.array([20]), {})
    still = propose(own, found, lambda side, rate: 0.0, "flow", "random", replace(LAPTOP, num_cores=1))
    assert still.bound == 4.0 and still.num_threads == 1

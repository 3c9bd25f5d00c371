import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg
import torch
from packed_set import PackedSet, tiny_teacher, tiny_training
from rawframes import denseflow_bytes, write_raw_frames

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.data import Dataset, FrameFormat, Motion
from pipeline_lib.configuration.specification import FramesSpecification, ManifestSpecification, MotionSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.flow.methods import create_method
from pipeline_lib.flow.precomputed import pack_motion, read_flow, resized_flow
from pipeline_lib.flow.quantisation import Quantisation, decode_image
from pipeline_lib.manifests.build import build_manifest
from pipeline_lib.manifests.content import frames_digest
from pipeline_lib.manifests.frame_folders import read_frame_folder
from pipeline_lib.manifests.probing import probe_file
from pipeline_lib.media.frames_stage import extract_frames, extract_video
from pipeline_lib.media.shards import Shard
from pipeline_lib.training.run import train

NAME, FORMAT, MOTION = "own", "short36", "exact"
KIND = Motion(method="precomputed", parameters={"written_bound": 20.0})
CLIPS = {"a/one": ("abseiling.mp4", 0.0), "a/two": ("abseiling.mp4", 2.0), "b/one": ("airdrum.mp4", 0.0)}


@pytest.fixture(scope="module")
def tree(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name, (clip, start) in CLIPS.items():
        write_raw_frames(media / "clips" / clip, root / name, start=start)
    return root


@pytest.fixture
def one(tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree / "a" / "one", tmp_path / "one"))


def dataset(tree: Path, **changes: Any) -> Dataset:
    return Dataset(
        **{"format": "rawframes", "videos": [str(tree)], "num_shards": 1, "frames_per_second": 25.0} | changes
    )


def packed(tree: Path, root: Path, frames: FrameFormat | None = None, **changes: Any) -> Layout:
    """The manifest, the frames and the motion of a tree."""
    layout = Layout(root)
    build_manifest(ManifestSpecification(name=NAME, dataset=dataset(tree, **changes)), layout.manifest_folder(NAME), 1)
    place, listed = layout.frames(NAME, FORMAT, "000"), layout.shard_list(NAME, "000")
    specification = FramesSpecification(
        dataset=NAME, frame_format=FORMAT, frames=frames or FrameFormat(), on_decode_error="reject"
    )
    extract_frames(specification, listed, place, 1)
    motion = MotionSpecification(dataset=NAME, frame_format=FORMAT, motion=MOTION, motion_kind=KIND, device="cpu")
    pack_motion(motion, place, listed, layout.motion(NAME, FORMAT, MOTION, "000"), 2)
    return layout


@pytest.mark.media
def test_a_tree_of_frames_and_flow_trains_teacher_and_student_without_a_video(tree, tmp_path):
    lists = {
        "train": "a/one 12 0\n a/two 11 0\nb/one 12 1\n",
        "validation": "b/one 12 1\na/one 15 0\n",
        "labels": "x\ny\n",
    }
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text)
    annotations = {name: str(tmp_path / f"{name}.txt") for name in lists}
    layout = packed(tree, tmp_path / "output", annotations=annotations)
    rows = {row["id"]: row for row in pq.read_table(layout.manifest(NAME)).to_pylist()}
    # A list of flow counts one less; the second listing of a video is its duplicate.
    assert [rows[id]["status"] for id in ("a/one", "a/two", "b/one")] == ["accepted"] * 3
    assert [rows[id]["labels"] for id in ("a/one", "b/one")] == [["x"], ["y"]]
    assert rows["a/one"]["frames_per_second"] == 25.0
    frames, motion = (
        Shard(path) for path in (layout.frames(NAME, FORMAT, "000"), layout.motion(NAME, FORMAT, MOTION, "000"))
    )
    for video in frames.videos:
        # The JPEGs are kept byte for byte; each pair has its flow, and the last row is repeated.
        files = sorted((tree / video.id).glob("img_*.jpg"))
        assert [bytes(jpeg) for jpeg in frames.read(frames.index[video.id], 0, 12)] == [f.read_bytes() for f in files]
        stored = [bytes(jpeg) for jpeg in motion.read(motion.index[video.id], 0, 12)]
        assert stored[11] == stored[10]
        for number, jpeg in enumerate(stored[:11], 1):
            found = Quantisation(("u", "v"), 20.0).dequantise(decode_image(jpeg, 64))
            written = np.stack([cv2.imread(str(tree / video.id / f"flow_{c}_{number:05d}.jpg"), 0) for c in "xy"])
            # Half a level, and what one more JPEG of quality 95 costs.
            assert np.abs(found - (written / 127.5 - 1) * 20.0).mean() < 0.2
    assert motion.record["parameters"]["boundary"] == {"rows": 1, "side": "end", "rule": "nearest row repeated"}
    assert sorted(motion.record["inputs"]) == [f"frames/{NAME}/{FORMAT}/000.h5", f"manifests/{NAME}/shards/000.json"]
    place = PackedSet(layout.root, NAME, 1)
    recipe = {"steps": 2, "global_batch": 2}
    teacher = tiny_teacher(place, recipe=recipe)
    train(teacher, layout.root, layout.experiment("flow_tiny", "1", "0"), 0)
    student = tiny_training(
        place, recipe=recipe, teacher=teacher, motion=MOTION, stage="distill", objective={"name": "distillation"}
    )
    assert train(student, layout.root, tmp_path / "student", 0) == 0


def test_every_byte_has_one_value_and_no_motion_is_exactly_none(tmp_path):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for name in "xy":
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    flow = read_flow([tmp_path / "x.png", tmp_path / "y.png"], 20.0)
    stored = Quantisation(("u", "v"), 20.0).quantise(torch.from_numpy(flow)).numpy()
    assert np.array_equal(stored[0], np.where(image >= 128, image, image + 1))
    # denseflow writes 0 as 128, tools that cut off as 127.
    assert denseflow_bytes(np.zeros(1))[0] == 128 and set(stored[0].flat[127:129]) == {128}
    # Every value comes back within a level of each scale.
    values = np.linspace(-20, 20, 4001)
    back = (
        (np.where(denseflow_bytes(values) >= 128, denseflow_bytes(values), denseflow_bytes(values) + 1.0) - 128)
        / 127
        * 20
    )
    assert np.abs(back - values).max() <= 20 / 127 + 1e-6


def test_flow_of_smaller_frames_is_shorter():
    flow = np.stack([np.full((40, 60), 8.0), np.full((40, 60), -4.0)]).astype(np.float32)
    assert resized_flow(flow, 20, 30) == pytest.approx(flow[:, ::2, ::2] / 2)
    with pytest.raises(Exception, match="unequal sizes: flow of 60×40 for frames of 30×30"):
        resized_flow(flow, 30, 30)


@pytest.mark.media
def test_larger_images_are_scaled_as_videos_are_and_their_flow_with_them(tree, tmp_path):
    layout = packed(tree, tmp_path, FrameFormat(short_side=32, jpeg_quality=95))
    frames, motion = (
        Shard(path) for path in (layout.frames(NAME, FORMAT, "000"), layout.motion(NAME, FORMAT, MOTION, "000"))
    )
    video = frames.videos[0]
    assert (video.num_frames, video.height, video.width, video.frames_per_second) == (12, 32, 48, 25.0)
    found = simplejpeg.decode_jpeg(bytes(frames.read(0, 3, 4)[0])).astype(float)
    source = cv2.imread(str(tree / video.id / "img_00004.jpg"))[..., ::-1]
    error = found - cv2.resize(source, (48, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(error).mean() < 4 and abs(error.mean()) < 0.5
    stored = Quantisation(("u", "v"), 20.0).dequantise(decode_image(bytes(motion.read(0, 3, 4)[0]), 32))
    written = cv2.imread(str(tree / video.id / "flow_x_00004.jpg"), 0) / 127.5 * 20 - 20
    assert np.abs(stored[0] - cv2.resize(written, (48, 32), interpolation=cv2.INTER_AREA) / 2).mean() < 0.2


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def enlarge(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        cv2.imwrite(str(folder / name), np.zeros((70, 96), dtype=np.uint8))

    return change


def cut(folder: Path) -> None:
    (folder / "img_00003.jpg").write_bytes((folder / "img_00003.jpg").read_bytes()[:700])


PROBLEMS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a frame in between": (remove("img_00005.jpg"), "missing frames: there is no number 5"),
    "y without x": (remove("flow_x_00011.jpg"), "missing flow: flow_y_00011.jpg has no flow along x"),
    "another size": (enlarge("img_00007.jpg"), "unequal sizes: img_00007.jpg is 96×70, img_00001.jpg is 96×64"),
    "flow of another size": (enlarge("flow_y_00002.jpg"), "unequal sizes: flow_y_00002.jpg is 96×70"),
    "the same number twice": (enlarge("img_5.jpg"), "unnumbered images: img_00005.jpg and img_5.jpg have the same"),
    "an image of another name": (enlarge("cover.jpg"), "unnumbered images: cover.jpg"),
    "frames from 0": (enlarge("img_00000.jpg"), "unmatched flow: it begins with flow_x_00001.jpg"),
}


@pytest.mark.media
@pytest.mark.parametrize("case", PROBLEMS)
def test_a_folder_that_disagrees_with_itself_has_one_reason(one, case):
    change, message = PROBLEMS[case]
    change(one)
    assert probe_file(one, decode=True).problem.startswith(message)


@pytest.mark.media
def test_a_damaged_image_and_a_wrong_number_of_flows_reject_one_video(tree, tmp_path):
    own = Path(shutil.copytree(tree, tmp_path / "tree"))
    cut(own / "a" / "one")
    for name in "xy":
        (own / "b" / "one" / f"flow_{name}_00011.jpg").unlink()
    assert "img_00003.jpg" in probe_file(own / "a" / "one", decode=True).problem
    layout = packed(own, tmp_path / "output", probe="headers")
    frames = Shard(layout.frames(NAME, FORMAT, "000"))
    assert frames.rejected["a/one"].startswith("damaged packet: img_00003.jpg")
    assert Shard(layout.motion(NAME, FORMAT, MOTION, "000")).rejected == {
        "b/one": "counts disagree: 10 flow images for 12 frames; `count: pairs` at gap 1 means 11"
    }


@pytest.mark.media
def test_other_layouts_and_rates(one, tmp_path):
    old = tmp_path / "old"
    (old / "u").mkdir(parents=True)
    (old / "v").mkdir()
    for file in one.iterdir():
        kind, number = file.stem.rsplit("_", 1)
        target = {"img": old / f"image_{number}.jpg", "flow_x": old / "u" / f"{number}.jpg"}
        shutil.copy(file, target.get(kind, old / "v" / f"{number}.jpg"))
    found = read_frame_folder(old)
    assert (len(found.frames), len(found.flow_x), len(found.flow_y), found.problem) == (12, 11, 11, "")
    before = frames_digest(old)
    (old / "v" / "00002.jpg").write_bytes(b"other")
    assert frames_digest(old) != before
    # At half the rate every second image is taken, and encoded anew.
    frames = FrameFormat(frames_per_second=12.5)
    specification = FramesSpecification(dataset=NAME, frame_format=FORMAT, frames=frames, on_decode_error="reject")
    half = extract_video({"path": str(one), "images_per_second": 25.0}, specification)
    assert (len(half.frames), half.frames_per_second) == (6, 12.5)


@pytest.mark.media
def test_class_folders_are_listed_and_a_wrong_line_is_named(tree, tmp_path):
    summary = build_manifest(ManifestSpecification(name=NAME, dataset=dataset(tree)), tmp_path / "manifest", 1)
    assert summary["classes"] == ["a", "b"]
    assert summary["status"] == {"accepted": 3}
    (tmp_path / "train.txt").write_text("a/one 12 0\na/two\n")
    wrong = dataset(tree, annotations={"train": str(tmp_path / "train.txt")})
    with pytest.raises(UserError, match=r"train\.txt: entry 2, 'a/two', is not 'folder total_frames label'"):
        build_manifest(ManifestSpecification(name=NAME, dataset=wrong), tmp_path / "manifest", 1)


def test_nothing_computes_precomputed_flow_from_a_video():
    with pytest.raises(UserError, match="use the student that it teaches"):
        create_method(KIND, torch.device("cpu"), 1)


def experiment(**changes: Any) -> dict[str, Any]:
    """An overlay: a teacher on precomputed flow of an own data set."""
    own = {"format": "rawframes", "videos": ["tree"], "frames_per_second": 25.0} | changes.pop("dataset", {})
    parameters = changes.pop("parameters", {"written_bound": 20.0})
    teacher = {
        "description": "A teacher",
        "stage": "train_teacher",
        "dataset": "own",
        "frame_format": "short256_native",
        "modality": "flow",
        "motion": "own_flow",
        "model": {"name": "s3dg_slim"},
        "recipe": "demo_flow",
        "protocols": ["two_clips"],
    }
    return {
        "datasets": {"own": own},
        "motions": {"own_flow": {"method": "precomputed", "parameters": parameters}},
        "frame_formats": {"own_12fps": {"frames_per_second": 12.5}},
        "experiments": {"teacher_own": teacher | changes},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {}}, "motions.own_flow.parameters.written_bound"),
        (
            {"dataset": {"format": "folder", "frames_per_second": None}},
            "lies beside the frames of a data set of folders",
        ),
        ({"dataset": {"format": "folder"}}, "datasets.own.frames_per_second: videos of the format `folder` are files"),
        ({"frame_format": "own_12fps"}, "takes 12.5 frames a second of 25"),
        ({"frame_format": "own_12fps", "dataset": {"frames_per_second": None}}, "set datasets.own.frames_per_second"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(planned, changes, message):
    assert planned(experiment()).runs("teacher_own")
    with pytest.raises(UserError, match=message):
        planned(experiment(**changes))

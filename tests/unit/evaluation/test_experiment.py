"""A trained experiment in Python: the README's lines run, and frames give what a file of these frames gives."""

import dataclasses
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_tree import CLASSES, HEIGHT, WIDTH, frames_of, make_run, make_tree, training_specification

from pipeline_lib import load
from pipeline_lib.configuration.data import FrameFormat, Motion
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.prediction import _write_frames

FRAMES = frames_of(3, 20, HEIGHT, WIDTH)


def trained(root: Path, name: str, modality: str = "rgb", sampling: dict[str, object] | None = None):
    layout = make_tree(root)
    specification = training_specification(name, modality)
    if sampling is not None:
        recipe = specification.recipe
        changed = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update=sampling)})
        specification = specification.model_copy(update={"recipe": changed})
    if modality == "flow":
        kind = Motion(method="farneback", bound=8.0)
        specification = specification.model_copy(update={"motion": "farneback", "motion_kind": kind})
    network = make_run(layout, specification)
    return load(name, root, device="cpu", short_side=HEIGHT), network


def test_the_readme_runs(repository: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "import load" in block]
    assert len(code.splitlines()) <= 10
    trained(tmp_path / "output", "d3d_demo")
    _write_frames(FRAMES, 25.0, tmp_path / "my_video.mkv")
    # This tree's shards do not record how their frames were scaled.
    code = code.replace('load("d3d_demo")', f'load("d3d_demo", short_side={HEIGHT})').replace(".mp4", ".mkv")
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(repository), "PATH": str(Path(sys.executable).parent)},
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines[0].count("'") == 6 and lines[0] != lines[1]
    assert lines[2].startswith("torch.Size([2, ") and "Mixed_4f" in lines[2]


def test_frames_and_a_file_of_them_are_seen_alike(tmp_path: Path) -> None:
    experiment, _ = trained(tmp_path / "output", "baseline")
    _write_frames(FRAMES, 25.0, tmp_path / "x.mkv")
    from_frames = experiment.predict(FRAMES, num_clips=2)
    from_file = experiment.predict(tmp_path / "x.mkv", num_clips=2)
    np.testing.assert_array_equal(from_frames.probabilities, from_file.probabilities)
    assert from_frames.classes == CLASSES and from_frames.num_frames == 20 and from_frames.num_clips == 2
    assert from_frames.probabilities.sum() == pytest.approx(1)


def test_features_are_the_networks_activations_of_the_centre(tmp_path: Path) -> None:
    experiment, network = trained(tmp_path / "output", "baseline")
    found = experiment.features(FRAMES, "logits", num_clips=3)
    assert found.shape == (3, len(CLASSES)) and found.dtype == torch.float32
    # Frames as high as the recipe's short side: a clip is a plain cut. JPEG changes them a little.
    top, left = round((HEIGHT - 32) / 2), round((WIDTH - 32) / 2)
    cut = torch.from_numpy(FRAMES[:8, top : top + 32, left : left + 32]).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        expected = network(cut)
    torch.testing.assert_close(found[:1], expected, atol=0.1 * float(expected.abs().max()), rtol=0)
    endpoint = experiment.endpoints[2]
    assert experiment.features(FRAMES, endpoint).shape[:1] == (1,)
    assert experiment.features(FRAMES, endpoint).ndim == 5


def test_an_array_of_frames_is_read_at_its_rate(tmp_path: Path) -> None:
    experiment, network = trained(tmp_path / "output", "baseline", sampling={"frames_per_second": 10.0})

    def expected(frames: list[int]) -> torch.Tensor:
        top, left = round((HEIGHT - 32) / 2), round((WIDTH - 32) / 2)
        cut = torch.from_numpy(FRAMES[frames, top : top + 32, left : left + 32]).permute(3, 0, 1, 2)[None] / 127.5 - 1
        with torch.no_grad():
            return network(cut)

    # Eight frames a tenth of a second apart: every second frame of 20 a second, every frame of an array of no rate.
    for rate, frames in ((20.0, [*range(2, 18, 2)]), (None, [*range(6, 14)])):
        found = experiment.features(FRAMES, "logits", frames_per_second=rate)
        tolerance = 0.1 * float(found.abs().max())
        torch.testing.assert_close(found, expected(frames), atol=tolerance, rtol=0)
    _write_frames(FRAMES, 20.0, tmp_path / "x.mkv")
    from_file = experiment.predict(tmp_path / "x.mkv", num_clips=2)
    from_frames = experiment.predict(FRAMES, num_clips=2, frames_per_second=20.0)
    np.testing.assert_array_equal(from_frames.probabilities, from_file.probabilities)


def test_a_flow_network_gets_its_flow(tmp_path: Path) -> None:
    experiment, _ = trained(tmp_path / "output", "teacher", "flow")
    moving = experiment.features(FRAMES, "logits")
    still = experiment.features(np.repeat(FRAMES[:1], 20, axis=0), "logits")
    assert not torch.equal(moving, still)


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_a_stream_is_judged_window_by_window_as_its_frames_are(tmp_path: Path, modality: str) -> None:
    # Names under which random networks are not sure of one class.
    experiment, _ = trained(tmp_path / "output", {"rgb": "b", "flow": "t"}[modality], modality)
    found = list(experiment.stream(iter(FRAMES), every=6))
    # Clips of 8 frames.
    assert [one.last_frame for one in found] == [7, 13, 19] and found[0].num_frames == 8
    for one in found:
        assert one.last_frame is not None
        alone = experiment.predict(FRAMES[one.last_frame - 7 : one.last_frame + 1], num_clips=1)
        # The colours are converted by another version of the same library.
        np.testing.assert_allclose(one.probabilities, alone.probabilities, atol=0.05)
    assert np.ptp([one.probabilities for one in found], axis=0).max() > 0.01
    # Half a window lies between two predictions unless something else is said; a short stream is judged at its end.
    assert [one.last_frame for one in experiment.stream(iter(FRAMES))] == [7, 11, 15, 19]
    (short,) = experiment.stream(iter(FRAMES[:3]))
    assert (short.last_frame, short.num_frames) == (2, 3)
    assert [one.num_frames for one in experiment.stream(FRAMES, every=50, window=12)] == [12]


def test_a_stream_keeps_no_frame_that_it_has_left(tmp_path: Path) -> None:
    experiment, _ = trained(tmp_path / "output", "baseline")
    alive: list[weakref.ref[np.ndarray]] = []

    def camera() -> Iterator[np.ndarray]:
        for _ in range(200):
            frame = np.full((HEIGHT, WIDTH, 3), 7, dtype=np.uint8)
            alive.append(weakref.ref(frame))
            yield frame
            assert sum(one() is not None for one in alive) <= 3

    assert len(list(experiment.stream(camera(), every=100))) == 2


def test_a_stream_is_taken_at_the_rate_of_the_trainings_frames(tmp_path: Path) -> None:
    experiment, _ = trained(tmp_path / "output", "baseline")
    slow = dataclasses.replace(experiment, frame_format=FrameFormat(short_side=HEIGHT, frames_per_second=5.0))
    # Eight frames at 5 a second are the first sixteen at 10, every second of them.
    first = next(slow.stream(FRAMES, frames_per_second=10.0))
    expected = next(experiment.stream(FRAMES[0::2]))
    assert first.last_frame in (14, 15)
    np.testing.assert_allclose(first.probabilities, expected.probabilities, atol=0.05)


def test_a_stream_that_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    experiment, _ = trained(tmp_path / "output", "baseline")
    for words, message in (({"every": 0}, "every is 0"), ({"window": 0}, "window is 0")):
        with pytest.raises(UserError, match=message):
            experiment.stream(FRAMES, **words)
    with pytest.raises(UserError, match=r"frame 0 is float64 \(40, 52, 3\)"):
        next(experiment.stream(FRAMES / 255))
    with pytest.raises(UserError, match="all frames of a stream have one size; frame 1"):
        next(experiment.stream([FRAMES[0], FRAMES[1][:20]]))


def test_a_file_of_weights_is_enough(tmp_path: Path) -> None:
    experiment, _ = trained(tmp_path / "output", "baseline")
    (weights,) = (tmp_path / "output").rglob("weights.safetensors")
    alone = weights.rename(tmp_path / "mine.safetensors")
    again = load(alone, short_side=HEIGHT)
    assert again.classes == experiment.classes
    with pytest.raises(UserError, match="short_side="):
        load(alone, root=tmp_path / "elsewhere")


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    experiment, _ = trained(tmp_path / "output", "baseline")
    with pytest.raises(UserError, match=r"uint8 \(T, H, W, 3\); these are float64"):
        experiment.predict(FRAMES / 255)
    with pytest.raises(UserError, match="no such file"):
        experiment.predict("absent.mp4")
    with pytest.raises(UserError, match="no endpoint Mixed_9z"):
        experiment.features(FRAMES, "Mixed_9z")


def test_importing_the_package_loads_no_torch(repository: Path) -> None:
    code = "import sys, pipeline_lib; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)

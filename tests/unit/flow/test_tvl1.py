"""TV-L1: the definition and the compiled loops against OpenCV, against each other, and against true flow."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from flow_material import defined_tvl1, moving_frames, read_flo, textured
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.configuration.data import Generated
from pipeline_lib.configuration.motions import TVL1Parameters
from pipeline_lib.flow.endpoint_error import endpoint_error, summarise
from pipeline_lib.flow.tvl1.cpu import TVL1
from pipeline_lib.flow.tvl1.median_network import median_5x5 as median_network
from pipeline_lib.flow.tvl1.method import opencv_object
from pipeline_lib.flow.tvl1.parameters import level_sizes
from pipeline_lib.flow.tvl1.torch_solver import median_5x5, pyramid, resize_linear, tvl1_from_pyramids, warp_cubic
from pipeline_lib.generation.videos import draw_scene, render, true_flow

OPENCV, FIXED = TVL1Parameters(mode="opencv"), TVL1Parameters()
GreyClip = Callable[[str, int, int, int], np.ndarray]

# Clip, first frame, frames apart: slow motion, and fast motion by skipping frames.
SLOW = [("abseiling.mp4", 10, 1), ("airdrum.mp4", 60, 1), ("flipping_a_pancake.mkv", 90, 1)]
FAST = [("abseiling.mp4", 40, 12)]


def reference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """OpenCV's flow, (2, H, W); a fresh object, which remembers the fewest scales that it has seen."""
    flow: np.ndarray = opencv_object(TVL1Parameters()).calc(first, second, None)  # type: ignore[call-overload]
    return flow.transpose(2, 0, 1)


def fast(first: np.ndarray, second: np.ndarray, parameters: TVL1Parameters) -> np.ndarray:
    solver = TVL1(first.shape[0], first.shape[1], parameters)
    return solver.flow(solver.pyramid(first), solver.pyramid(second))


def defined(first: np.ndarray, second: np.ndarray, parameters: TVL1Parameters) -> np.ndarray:
    pair = [torch.from_numpy(frame)[None, None] for frame in (first, second)]
    return defined_tvl1(pair[0], pair[1], parameters)[0].numpy()


@pytest.mark.media
@pytest.mark.parametrize("short_side", [128, 256])
@pytest.mark.parametrize(("name", "start", "gap"), SLOW)
def test_agrees_with_opencv_on_slow_motion(
    grey_clip: GreyClip, name: str, start: int, gap: int, short_side: int
) -> None:
    frames = grey_clip(name, short_side, start, gap + 1)
    wanted = reference(frames[0], frames[gap])
    exact = summarise(fast(frames[0], frames[gap], OPENCV), wanted)
    fixed = summarise(fast(frames[0], frames[gap], FIXED), wanted)
    assert exact["reference_magnitude"] <= 3
    assert exact["mean"] <= 0.02
    assert fixed["mean"] <= 0.05
    assert fixed["p99"] <= 0.25


@pytest.mark.media
@pytest.mark.parametrize(("name", "start", "gap"), FAST)
def test_agrees_with_opencv_on_fast_motion(grey_clip: GreyClip, name: str, start: int, gap: int) -> None:
    frames = grey_clip(name, 128, start, gap + 1)
    wanted = reference(frames[0], frames[gap])
    exact = summarise(fast(frames[0], frames[gap], OPENCV), wanted)
    fixed = summarise(fast(frames[0], frames[gap], FIXED), wanted)
    assert exact["reference_magnitude"] > 1.5
    assert exact["share_within_0.1"] > 0.75
    assert fixed["share_within_0.1"] > 0.4


@pytest.mark.media
@pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_error_against_flying_chairs_is_opencvs(media: Path, index: int) -> None:
    folder = media / "flow_pairs"
    frames = [cv2.imread(str(folder / f"{index}img{side}.ppm"), cv2.IMREAD_GRAYSCALE) for side in (0, 1)]
    truth = read_flo(folder / f"{index}flow.flo")
    error = {"reference": endpoint_error(reference(*frames), truth).mean()}
    for name, parameters in (("opencv", OPENCV), ("fixed", FIXED)):
        error[name] = endpoint_error(fast(*frames, parameters), truth).mean()
    assert error["opencv"] <= 1.02 * error["reference"]
    assert error["fixed"] <= 1.02 * error["reference"]


def test_error_against_the_generated_sets_true_flow_is_opencvs() -> None:
    """One pair of each of eight videos: the sums of the errors, since a single small pair is a matter of luck."""
    errors = {"reference": 0.0, "opencv": 0.0, "fixed": 0.0}
    for index in range(8):
        scene = draw_scene(Generated(), "validation", index)
        video = render(scene)[3:5]
        truth, valid = true_flow(scene)
        true, mask = truth[3].transpose(2, 0, 1), valid[3]
        frames = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in video]
        fields = {"reference": reference(*frames), "opencv": fast(*frames, OPENCV), "fixed": fast(*frames, FIXED)}
        for name, field in fields.items():
            errors[name] += float(endpoint_error(field, true)[mask].mean())
    assert errors["opencv"] <= 1.02 * errors["reference"]
    assert errors["fixed"] <= 1.02 * errors["reference"]
    assert errors["fixed"] / 8 < 1.5


@pytest.mark.media
def test_definition_agrees_with_opencv_and_with_the_loops(grey_clip: GreyClip) -> None:
    frames = grey_clip("abseiling.mp4", 128, 10, 2)
    assert summarise(defined(frames[0], frames[1], OPENCV), reference(frames[0], frames[1]))["mean"] <= 0.02
    assert summarise(defined(frames[0], frames[1], FIXED), fast(frames[0], frames[1], FIXED))["mean"] <= 0.005


@pytest.mark.parametrize("mode", ["opencv", "fixed"])
def test_loops_equal_the_definition_step_by_step(mode: str) -> None:
    """Few iterations, so that rounding has no time to grow: any wrong term shows."""
    frames = moving_frames(2, 61, 83, (2, 1), seed=4).astype(np.float32)
    frames += np.random.default_rng(0).normal(0, 3, frames.shape).astype(np.float32)
    parameters = TVL1Parameters(
        mode=mode, num_scales=2, num_warps=2, iterations=7, inner_iterations=7, outer_iterations=2, epsilon=0.0
    )
    difference = endpoint_error(fast(*frames, parameters), defined(*frames, parameters))
    assert np.percentile(difference, 99) < 2e-3 and difference.mean() < 1e-4


@settings(max_examples=25, deadline=None)
@given(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from(["opencv", "fixed"]), st.integers(0, 5))
def test_whole_translations_are_found(dx: int, dy: int, mode: str, seed: int) -> None:
    frames = moving_frames(2, 56, 72, (dx, dy), seed=seed)
    flow = fast(frames[0], frames[1], TVL1Parameters(mode=mode))
    assert np.median(flow[0, 12:-12, 12:-12]) == pytest.approx(dx, abs=0.15)
    assert np.median(flow[1, 12:-12, 12:-12]) == pytest.approx(dy, abs=0.15)


@settings(max_examples=10, deadline=None)
@given(st.integers(16, 40), st.integers(16, 40), st.integers(0, 255), st.integers(0, 255))
def test_no_motion_and_no_texture_give_zero(height: int, width: int, first: int, second: int) -> None:
    still = textured(height, width, first)
    assert np.abs(fast(still, still, FIXED)).max() == 0
    flat = [np.full((height, width), value, np.uint8) for value in (first, second)]
    assert np.abs(fast(*flat, FIXED)).max() == 0
    assert np.abs(defined(*flat, FIXED)).max() == 0


def test_smallest_and_refused_sizes() -> None:
    frames = moving_frames(2, 16, 16, (1, 0))
    assert level_sizes(16, 16, FIXED) == [(16, 16)]
    assert np.isfinite(fast(*frames, OPENCV)).all() and fast(*frames, FIXED).shape == (2, 16, 16)
    for size in ((1, 40), (15, 16)):
        small = np.zeros(size, np.uint8)
        for solve in (fast, defined):
            with pytest.raises(ValueError, match="at least 16 px"):
                solve(small, small, FIXED)


def test_not_a_number_is_refused() -> None:
    frames = moving_frames(2, 32, 32, (1, 0)).astype(np.float32)
    frames[1, 3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        fast(*frames, FIXED)


def test_a_batch_is_its_pairs() -> None:
    pairs = [moving_frames(2, 32, 40, step, seed=seed) for seed, step in enumerate([(1, 0), (0, 2), (0, 0)])]
    first, second = (torch.from_numpy(np.stack([pair[i] for pair in pairs]))[:, None] for i in (0, 1))
    for parameters in (FIXED, OPENCV):
        batch = defined_tvl1(first, second, parameters).numpy()
        for row, pair in zip(batch, pairs, strict=True):
            np.testing.assert_allclose(row, defined(pair[0], pair[1], parameters), atol=5e-3)


def test_pyramids_are_shared_between_pairs() -> None:
    frames = torch.from_numpy(moving_frames(3, 32, 40, (1, 1)))[:, None]
    levels = pyramid(frames, FIXED)
    shared = tvl1_from_pyramids([level[:2] for level in levels], [level[1:] for level in levels], FIXED)
    torch.testing.assert_close(shared, defined_tvl1(frames[:2], frames[1:], FIXED), atol=1e-4, rtol=0)


def test_pieces_equal_opencvs() -> None:
    generator = np.random.default_rng(1)
    image = (generator.random((50, 70)) * 255).astype(np.float32)
    tensor = torch.from_numpy(image)[None, None]
    smaller = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resize_linear(tensor, (40, 56), (1.25, 1.25))[0, 0], smaller, atol=1e-2)
    u = generator.normal(0, 8, (2, 50, 70)).astype(np.float32)
    x, y = np.arange(70, dtype=np.float32) + u[0], np.arange(50, dtype=np.float32)[:, None] + u[1]
    warped = warp_cubic(tensor, torch.from_numpy(u)[None])[0, 0]
    np.testing.assert_allclose(warped, cv2.remap(image, x, y, cv2.INTER_CUBIC), atol=5e-3)
    np.testing.assert_array_equal(median_5x5(tensor)[0, 0], cv2.medianBlur(image, 5))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_median_network_equals_opencvs(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 9, (height, width)).astype(np.float32)
    median = np.empty_like(image)
    median_network(image, median, np.empty((5, width + 4), np.float32))
    np.testing.assert_array_equal(median, cv2.medianBlur(image, 5))

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.clips.dataset import MicroBatchSampler
from pipeline_lib.clips.sampling import (
    ClipRequest,
    clip_span,
    crop_corner,
    epoch_order,
    frame_indices,
    generator,
    latest_start,
    resized_shape,
    uniform_starts,
)


@given(num_frames=st.integers(1, 80), stride=st.integers(1, 8), total=st.integers(1, 400), data=st.data())
def test_clips_stay_inside_the_video_and_loop_only_when_it_is_too_short(num_frames, stride, total, data):
    latest = latest_start(num_frames, stride, total)
    start = data.draw(st.integers(0, latest))
    indices = frame_indices(start, num_frames, stride, total)
    assert len(indices) == num_frames
    assert indices[0] == start
    assert 0 <= indices.min() <= indices.max() < total
    if clip_span(num_frames, stride) <= total:
        assert (np.diff(indices) == stride).all()
    else:
        assert start == 0
        assert indices.tolist() == [i * stride % total for i in range(num_frames)]


@given(num_clips=st.integers(1, 100), num_frames=st.integers(1, 64), total=st.integers(1, 300))
def test_uniform_starts_cover_the_video_evenly(num_clips, num_frames, total):
    starts = uniform_starts(num_clips, num_frames, 1, total)
    latest = latest_start(num_frames, 1, total)
    assert len(starts) == num_clips
    assert starts == sorted(starts)
    if num_clips == 1:
        assert starts == [latest // 2]
    else:
        assert (starts[0], starts[-1]) == (0, latest)
        gaps = np.diff(starts)
        assert gaps.max() - gaps.min() <= 1


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), num_videos=st.integers(1, 300))
def test_epochs_are_permutations_and_pure(seed, epoch, num_videos):
    order = epoch_order(seed, epoch, num_videos)
    assert sorted(order.tolist()) == list(range(num_videos))
    assert (order == epoch_order(seed, epoch, num_videos)).all()


def test_streams_differ_by_seed_purpose_and_counter():
    draws = {generator(*key).integers(2**62) for key in [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (0, 1, 0, 1)]}
    assert len(draws) == 5


@pytest.mark.parametrize(
    ("shape", "expected"), [((240, 320), (256, 341)), ((360, 204), (452, 256)), ((64, 64), (256, 256))]
)
def test_resize_keeps_the_aspect(shape, expected):
    assert resized_shape(*shape, 256) == expected


@given(
    height=st.integers(32, 400),
    width=st.integers(32, 400),
    vertical=st.floats(0, 1),
    horizontal=st.floats(0, 1),
    short_side=st.integers(32, 320),
)
def test_crops_stay_inside_the_resized_frame(height, width, vertical, horizontal, short_side):
    new_height, new_width = resized_shape(height, width, short_side)
    request = ClipRequest(0, 0, 8, crop=32, short_side=short_side, vertical=vertical, horizontal=horizontal)
    top, left = crop_corner(new_height, new_width, request)
    assert 0 <= top <= new_height - 32
    assert 0 <= left <= new_width - 32


@given(
    places=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), min_size=1, max_size=4),
    first=st.integers(0, 5),
    num_steps=st.integers(1, 4),
)
def test_a_process_takes_the_same_places_of_every_steps_batch(places, first, num_steps):
    sampler = MicroBatchSampler(first, first + num_steps, 25, places)
    found = list(sampler)
    assert len(found) == len(sampler) == num_steps * len(places)
    for number, samples in enumerate(found):
        step, (place, num_clips) = first + number // len(places), places[number % len(places)]
        assert samples == [25 * step + place + clip for clip in range(num_clips)]

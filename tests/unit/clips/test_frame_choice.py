"""Which frames a clip holds: rates, the end of a video, segments, and clips of all frames."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_set import PackedSet, make_packed_set

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import ClipReader, TrainingClips
from pipeline_lib.clips.index import ClipIndex, build_index
from pipeline_lib.clips.protocol_clips import video_requests
from pipeline_lib.clips.sampling import (
    NUM_UNIFORM,
    PADDING,
    ClipRequest,
    StoredVideo,
    clip_span,
    frame_indices,
    latest_start,
    random_request,
    segment_frames,
    stored_stride,
    uniform_starts,
)
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.training import PastEnd, Sampling
from pipeline_lib.errors import UserError

CPU = torch.device("cpu")
SMALL = {"crop": 32, "short_side": (36, 36)}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ClipIndex:
    packed: PackedSet = make_packed_set(tmp_path_factory.mktemp("frames"), lengths=(12, 5), num_train=12)
    return build_index(packed.layout, packed.name, "short36", "exact", packed.num_shards, 1, "train")


def video(num_frames: int = 300, rate: float = 25.0) -> StoredVideo:
    return StoredVideo(0, num_frames, 36, 48, rate, "v")


def rounded(value: Fraction) -> int:
    """To the nearest whole number, a half upwards, without floats."""
    return int((value + Fraction(1, 2)).__floor__())


@pytest.mark.parametrize(("rate", "span"), [(25, 208), (30, 249), (60, 497), (15, 125)])
def test_32_frames_at_a_stride_of_8_thirtieths_of_a_second_span_the_same_time_at_every_rate(rate, span):
    stride = stored_stride(8, 30.0, video(rate=float(rate)))
    expected = [5 + rounded(Fraction(8 * rate, 30) * k) for k in range(32)]
    assert frame_indices(5, 32, stride, 1000).tolist() == expected
    assert clip_span(32, stride) == span == expected[-1] - expected[0] + 1
    assert latest_start(32, stride, 600) == 600 - span
    assert uniform_starts(3, 32, stride, 600) == [0, round((600 - span) / 2), 600 - span]
    # Without a rate the stride counts stored frames.
    assert clip_span(32, stored_stride(8, None, video(rate=float(rate)))) == 249


@given(
    numerator=st.sampled_from([24000, 25000, 30000, 50000, 60000, 12500, 12000]),
    denominator=st.sampled_from([1000, 1001]),
    target=st.sampled_from([12.5, 15.0, 25.0, 30.0, 60.0]),
    stride=st.integers(1, 16),
    num_frames=st.integers(1, 64),
)
def test_frames_lie_at_the_rounded_times_that_the_paper_prints(numerator, denominator, target, stride, num_frames):
    found = frame_indices(0, num_frames, stored_stride(stride, target, video(rate=numerator / denominator)), 10**6)
    step = Fraction(numerator, denominator) * stride / Fraction(target)
    assert found.tolist() == [rounded(step * k) for k in range(num_frames)]


def test_a_stride_in_seconds_needs_the_video_s_rate():
    with pytest.raises(UserError, match=r"video v: .*sampling\.frames_per_second: 30` .*null"):
        stored_stride(8, 30.0, video(rate=0.0))
    assert stored_stride(8, None, video(rate=0.0)) == 8.0


@pytest.mark.parametrize(
    ("past_end", "expected"),
    [("loop", [0, 3, 6, 9, 2, 5]), ("clamp", [0, 3, 6, 9, 9, 9]), ("pad", [0, 3, 6, 9, PADDING, PADDING])],
)
def test_beyond_the_end_a_clip_loops_clamps_or_is_padded(past_end: PastEnd, expected):
    assert frame_indices(0, 6, 3.0, 10, past_end).tolist() == expected
    sampling = Sampling(num_frames=6, stride=3, past_end=past_end, **SMALL)
    (judged,) = video_requests(Protocol(num_clips=1), sampling, video(10))
    trained = random_request(sampling, np.full(NUM_UNIFORM, 0.9), video(10), 0, -1, False)
    assert judged.indices(10).tolist() == trained.indices(10).tolist() == expected
    # The protocol's word counts if it says one.
    (looped,) = video_requests(Protocol(num_clips=1, past_end="loop"), sampling, video(10))
    assert looped.indices(10).tolist() == [0, 3, 6, 9, 2, 5]


@given(
    num_frames=st.integers(1, 64),
    stride=st.floats(0.2, 9.0),
    total=st.integers(1, 80),
    past_end=st.sampled_from(["loop", "clamp", "pad"]),
    data=st.data(),
)
def test_what_follows_the_end_changes_no_frame_before_it(num_frames, stride, total, past_end, data):
    start = data.draw(st.integers(0, latest_start(num_frames, stride, total)))
    indices = frame_indices(start, num_frames, stride, total, past_end)
    endless = frame_indices(start, num_frames, stride, 10**6)
    inside = endless < total
    assert (indices[inside] == endless[inside]).all()
    if start > 0:
        assert inside.all()
    beyond = indices[~inside]
    assert (beyond == {"loop": endless[~inside] % total, "clamp": total - 1, "pad": PADDING}[past_end]).all()


def test_padded_frames_are_exactly_zero_at_the_network_s_input(index: ClipIndex) -> None:
    reader = ClipReader(index, ("rgb", "flow"))
    rows = [int(np.flatnonzero(index.video_frames == count)[0]) for count in (5, 12)]
    requests = [ClipRequest(row, 0, 8, 32, 36, past_end="pad") for row in rows]
    flipped = [replace(request, flip=True) for request in requests]
    backwards = [replace(request, reverse=True) for request in requests]
    looped = to_network_input(reader.read([replace(request, past_end="loop") for request in requests]), CPU)
    for padded, frames in ((requests, slice(5, None)), (flipped, slice(5, None)), (backwards, slice(0, 3))):
        inputs = to_network_input(reader.read(padded), CPU)
        assert set(inputs) == set(looped)
        for name in ("rgb", "flow"):
            assert (inputs[name][0, :, frames] == 0).all()
            # A longer video in the same batch has all its frames.
            assert inputs[name][1].abs().amax(dim=(0, 2, 3)).min() > 0
            if padded is requests:
                assert torch.equal(inputs[name][0, :, :5], looped[name][0, :, :5])
                assert torch.equal(inputs[name][1], looped[name][1])


def middle_by_hand(num_frames: int, video_frames: int) -> list[int]:
    """The test mode of PySlowFast's ``ssv2``, written out."""
    size = float(video_frames - 1) / num_frames
    bounds = [(int(np.round(size * i)), int(np.round(size * (i + 1)))) for i in range(num_frames)]
    return [(first + last) // 2 for first, last in bounds]


@given(num_frames=st.integers(1, 64), video_frames=st.integers(1, 300), seed=st.integers(0, 1000))
def test_segments_cover_the_video_in_order_with_a_frame_each(num_frames, video_frames, seed):
    middle = segment_frames(num_frames, video_frames)
    assert list(middle) == middle_by_hand(num_frames, video_frames)
    drawn = segment_frames(num_frames, video_frames, np.random.default_rng(seed).random(num_frames))
    size = (video_frames - 1) / num_frames
    for chosen in (middle, drawn):
        assert (np.diff(chosen) >= 0).all()
        for number, frame in enumerate(chosen):
            assert round(size * number) <= frame <= round(size * (number + 1)) <= video_frames - 1


def test_every_frame_of_a_segment_is_drawn_and_45_frames_give_no_jump_back_in_time():
    # Something-something at 16 frames a stride of 8 apart: 0 8 … 40 and then 3 11 … of a looped video.
    assert (np.diff(frame_indices(0, 16, 8, 45)) < 0).any()
    random = np.random.default_rng(0)
    drawn = np.array([segment_frames(16, 45, random.random(16)) for _ in range(500)])
    for number in range(16):
        first, last = round(44 / 16 * number), round(44 / 16 * (number + 1))
        assert set(drawn[:, number]) == set(range(first, last + 1))


def test_segments_are_random_in_training_middle_in_evaluation_and_draw_further_numbers_only(index: ClipIndex) -> None:
    plain = Sampling(num_frames=4, crop=32, short_side=(36, 44))
    segments = plain.model_copy(update={"spacing": "segments"})
    reader = ClipReader(index, ("rgb",))
    own, other = (TrainingClips(reader, sampling, 3, True) for sampling in (segments, plain))
    seen = set()
    for sample in range(60):
        cut, usual = own.request(sample), other.request(sample)
        assert cut.frames is not None
        seen.add(cut.frames)
        assert cut.start == cut.frames[0] and list(cut.frames) == sorted(cut.frames)
        # What else the sample draws does not change.
        for name in ("video", "short_side", "vertical", "horizontal", "flip", "label"):
            assert getattr(cut, name) == getattr(usual, name)
    assert len(seen) > 20
    requests = video_requests(Protocol(num_clips=3), segments, index.video(0))
    assert [list(request.frames or ()) for request in requests] == [middle_by_hand(4, 12)] * 3
    batch, frame = reader.read(requests[:1]), reader.read([ClipRequest(0, middle_by_hand(4, 12)[2], 1, 32, 36)])
    assert torch.equal(batch["rgb"][0, 2], frame["rgb"][0, 0])


@pytest.mark.parametrize(
    ("protocol", "num_frames", "length"),
    [
        ({}, 100, 100),
        ({}, 40, 64),
        ({"at_least": 250}, 100, 250),
        ({"at_least": 250}, 300, 300),
        ({"at_least": 64, "at_most": 64}, 45, 64),
        ({"at_least": 64, "at_most": 64}, 100, 64),
        ({"at_most": 80}, 100, 80),
    ],
)
def test_a_clip_of_all_frames_is_padded_to_and_capped_at_what_the_protocol_says(protocol, num_frames, length):
    asked = Protocol(num_clips="all_frames", **protocol)
    (request,) = video_requests(asked, Sampling(num_frames=64), video(num_frames))
    assert request.num_frames == length
    # Something-something's cap takes the first frames, and 250 frames of a short video are the video again.
    assert request.indices(num_frames).tolist() == [k % num_frames for k in range(length)]


def test_a_clip_of_all_frames_takes_the_recipe_s_rate_to_the_last_frame_that_fits():
    sampling = Sampling(num_frames=4, stride=2, frames_per_second=30.0)
    (request,) = video_requests(Protocol(num_clips="all_frames"), sampling, video(100, 25.0))
    expected = [rounded(Fraction(50, 30) * k) for k in range(100)]
    assert request.indices(100).tolist() == [frame for frame in expected if frame < 100]


def test_mirroring_can_be_switched_off_for_a_recipe(index: ClipIndex) -> None:
    reader = ClipReader(index, ("rgb",))
    free, still = (TrainingClips(reader, Sampling(num_frames=4, flip=flip, **SMALL), 0, True) for flip in (True, False))
    assert any(free.request(sample).flip for sample in range(50))
    for sample in range(50):
        assert still.request(sample) == replace(free.request(sample), flip=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"at_least": 250}, "at_least: .*all_frames"),
        ({"num_clips": 3, "at_most": 64}, "at_most: .*all_frames"),
        ({"num_clips": "all_frames", "at_least": 65, "at_most": 64}, "at_least: 65 .*at_most, 64"),
    ],
)
def test_bounds_of_a_protocol_that_cannot_be_met_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**changes)

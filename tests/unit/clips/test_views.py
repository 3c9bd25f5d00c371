"""Where motion clips come from, and the two views of a video that are contrasted."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_set import MODIST_COLOURS, PackedSet, make_packed_set, measure_strengths

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import ClipReader
from pipeline_lib.clips.index import ClipIndex, build_index, kept_share
from pipeline_lib.clips.motion_strength import Strengths, strong_starts
from pipeline_lib.clips.sampling import frame_indices, latest_start
from pipeline_lib.clips.views import MotionViews, PairedClips, StartCounts
from pipeline_lib.configuration.training import PastEnd, Sampling
from pipeline_lib.errors import UserError

SAMPLING = Sampling(num_frames=4, stride=2, crop=32, short_side=(36, 40), colours=MODIST_COLOURS)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    made = make_packed_set(tmp_path_factory.mktemp("views"), num_train=16, lengths=(12, 20))
    measure_strengths(made)
    return made


@pytest.fixture(scope="module")
def index(packed: PackedSet) -> ClipIndex:
    return build_index(packed.layout, packed.name, "short36", "exact", packed.num_shards, 1, "train", True)


def paired(
    index: ClipIndex,
    threshold: float = 0.0,
    jitter: bool = True,
    seed: int = 0,
    threshold_of: Literal["frame", "clip_share"] = "frame",
) -> PairedClips:
    views = MotionViews(3, 2, threshold, jitter, threshold_of)
    return PairedClips(ClipReader(index, ["rgb", "flow"]), SAMPLING, seed, True, views)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    st.integers(1, 6),
    st.sampled_from([1.0, 2.0, 10 / 3, 0.5, 5.0]),
    st.floats(0, 0.9),
    st.booleans(),
    st.sampled_from(["loop", "clamp", "pad"]),
)
def test_strong_starts_are_those_whose_clip_moves_enough(
    values: list[float], num_frames: int, stride: float, threshold: float, every_frame: bool, past_end: PastEnd
) -> None:
    strengths = np.array(values, np.float32)
    last = latest_start(num_frames, stride, len(values))
    held = [frame_indices(s, num_frames, stride, len(values), past_end) for s in range(last + 1)]
    clips = [strengths[own[own >= 0]].astype(np.float64) for own in held]
    means = [clip.mean() for clip in clips]
    moving = [clip.min() if every_frame else clip.mean() for clip in clips]
    found = strong_starts(strengths, num_frames, stride, threshold, every_frame, past_end)
    strong = [start for start, value in enumerate(moving) if value > threshold or threshold == 0]
    assert found.num_allowed == len(strong)
    if strong:
        assert found.starts.tolist() == strong
    else:
        # Nothing moves enough: the two strongest clips, so that the two views of a video can differ.
        assert found.starts.tolist() == sorted(set(found.starts.tolist()))
        assert len(found.starts) == min(2, last + 1)
        assert sorted(means[start] for start in found.starts) == pytest.approx(sorted(means)[-2:])


def test_the_threshold_is_compared_in_the_unit_of_the_motion_with_every_frame(index: ClipIndex) -> None:
    # A share of 0.05 of the bound of 4 px is a mean of 0.2 px: above a γ of 0.1 px, and below 0.1 of the bound.
    still = with_burst(index, 6, 10, share=0.05)
    every, share = paired(still, threshold=0.1), paired(still, threshold=0.1, threshold_of="clip_share")
    for video in range(len(still)):
        # Frames 6 … 10 alone move: of three frames 2 apart, all lie there only from frame 6 on.
        assert every.motion_starts(video).starts.tolist() == [6]
        assert every.motion_starts(video).num_allowed == 1
        assert share.motion_starts(video).num_allowed == 0
        strongest = share.motion_starts(video).starts
        assert len(strongest) == 2 and 6 in strongest
    # One moving frame of three lifts the mean over a clip, but not every frame of it.
    mean = paired(still, threshold=0.01, threshold_of="clip_share").motion_starts(0).starts
    assert mean.tolist() == [2, 3, 4, 5, 6, *range(7, min(11, int(still.video_frames[0]) - 4))]
    assert every.start_counts() == StartCounts(len(still), 0, len(still))
    assert share.start_counts() == StartCounts(len(still), len(still), 0)
    assert paired(still).start_counts() is None


def test_the_motion_views_are_two_clips_whenever_the_video_has_two_starts(index: ClipIndex) -> None:
    still = with_burst(index, 6, 11, share=0.05)
    cases = {
        # Two starts that γ allows; none, so that the two strongest stand in; all.
        "allowed": paired(still, threshold=0.1),
        "none": paired(still, threshold=0.5),
        "all": paired(still),
    }
    for name, clips in cases.items():
        pairs = [tuple(request.start for request in clips.requests(sample)[1]) for sample in range(64)]
        assert all(first != second for first, second in pairs), name
        assert len({pair[0] for pair in pairs}) > 1 and len({pair[1] for pair in pairs}) > 1, name
    assert {start for pair in pairs for start in pair} >= set(range(8))
    # One start that γ allows is both views: what it forbids is not taken to tell them apart.
    lonely = paired(with_burst(index, 6, 10, share=0.05), threshold=0.1)
    assert all(request.start == 6 for sample in range(16) for request in lonely.requests(sample)[1])


def test_visual_and_motion_clips_span_the_same_time_at_any_rate(index: ClipIndex) -> None:
    # The set has 25 frames a second; visual clips of 4 at a stride of 4, motion clips of 7 at 2, counted in 1/50 s.
    sampling = Sampling(num_frames=4, stride=4, crop=32, short_side=(36, 40), frames_per_second=50.0)
    views = MotionViews(num_frames=7, stride=2, threshold=0.0, jitter=True)
    clips = PairedClips(ClipReader(index, ["rgb", "flow"]), sampling, 0, True, views)
    visual, motion = clips.requests(0)
    assert np.diff(visual[0].indices(1000)).tolist() == [2, 2, 2]
    assert np.diff(motion[0].indices(1000)).tolist() == [1] * 6


def test_the_table_holds_the_mean_of_every_frame(packed, index):
    assert index.strengths is not None
    # A square of 14 × 14 in 36 × 48 moves by 2 pixels along one of two axes; the bound is 4.
    expected = 14 * 14 / (36 * 48) * (2 / 4) / 2
    for video in range(len(index)):
        own = index.strengths.of_video(video, int(index.video_frames[video]))
        assert own == pytest.approx(expected, rel=0.15)
        assert own.dtype == np.float32


def test_a_table_of_another_shard_is_refused(packed, tmp_path):
    other = make_packed_set(tmp_path, num_train=16, lengths=(9,))
    place = (other.layout, other.name, "short36", "exact", other.num_shards, 1, "train", True)
    with pytest.raises(UserError, match="motion_strength"):
        build_index(*place)
    for shard in ("000", "001"):
        source = packed.layout.strength(packed.name, "short36", "exact", shard)
        other.layout.strength(other.name, "short36", "exact", shard).write_bytes(source.read_bytes())
    with pytest.raises(UserError, match="does not fit"):
        build_index(*place)


def with_burst(index: ClipIndex, first: int, last: int, share: float = 0.5) -> ClipIndex:
    """The index as if every video moved in frames first … last alone, by this share of the bound."""
    assert index.strengths is not None
    values = np.zeros_like(index.strengths.values)
    for video, position in enumerate(index.strengths.first.tolist()):
        assert first <= last < index.video_frames[video]
        values[position + first : position + last + 1] = share
    return replace(index, strengths=Strengths(values, index.strengths.first))


def test_motion_clips_come_from_where_there_is_motion(index):
    burst = with_burst(index, 6, 10)
    clips = paired(burst, threshold=0.2, threshold_of="clip_share")
    free, starts = paired(burst), set()
    for sample in range(64):
        for request in clips.requests(sample)[1]:
            own = burst.strengths.of_video(request.video, int(burst.video_frames[request.video]))
            assert own[frame_indices(request.start, 3, 2, len(own))].mean() > 0.2
        starts |= {request.start for request in free.requests(sample)[1]}
    assert min(starts) < 3 and max(starts) > 10


def test_views_are_drawn_apart_and_without_jitter_equation_2_s_pairs_are_aligned(index):
    apart = [paired(index).requests(sample) for sample in range(64)]
    assert len({tuple(r.start for r in visual) for visual, _ in apart}) > 20
    assert any(visual[0].start != motion[1].start for visual, motion in apart)
    assert all(motion[0].start != motion[1].start for _, motion in apart)
    for visual, motion in (paired(index, jitter=False).requests(sample) for sample in range(64)):
        assert (visual[0].start, visual[1].start) == (motion[1].start, motion[0].start)
        # Motion clips get no augmentation (section 4.1): the centre, never mirrored.
        assert all((r.vertical, r.horizontal, r.flip) == (0.5, 0.5, False) for r in motion)


def test_a_batch_holds_queries_before_keys_and_depends_on_seed_and_sample_alone(index):
    clips = paired(index)
    batch = clips.__getitems__([3, 8, 21])
    assert batch["rgb"].shape == (6, 4, 32, 32, 3) and batch["flow"].shape == (6, 3, 32, 32, 2)
    assert batch["videos"].shape == batch["labels"].shape == (3,)
    alone = clips.__getitems__([8])
    for name, tensor in alone.items():
        rows = [1, 4] if len(batch[name]) == 6 else [1]
        assert torch.equal(batch[name][rows], tensor), name
    assert not torch.equal(paired(index, seed=1).__getitems__([8])["rgb"], alone["rgb"])
    inputs = to_network_input(batch, torch.device("cpu"))
    assert inputs["flow"].shape == (6, 2, 3, 32, 32)
    flipped = [sample for sample in range(64) if clips.requests(sample)[0][0].flip]
    assert 16 < len(flipped) < 48
    # The video's label says where its square goes: motion clips keep their direction whatever the visual ones do.
    mirrored = clips.__getitems__(flipped)
    flow = to_network_input(mirrored, torch.device("cpu"))["flow"][: len(flipped)]
    towards = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    moved = []
    for row, label in enumerate(mirrored["labels"].tolist()):
        u, v = towards[index.classes[label]]
        moved.append(u * flow[row, 0].mean().item() + v * flow[row, 1].mean().item())
    # A square may lie outside the crop; none goes the other way.
    assert min(moved) > -1e-3 and np.mean(moved) > 0.03


def test_visual_and_motion_clips_are_padded_each_by_its_own_length(index: ClipIndex) -> None:
    # Videos of 12 and 20 frames: visual clips of 4 frames fit at a stride of 2, motion clips of 8 at 2 only into 20.
    sampling = Sampling(num_frames=4, stride=2, crop=32, short_side=(36, 40), past_end="pad")
    clips = PairedClips(ClipReader(index, ["rgb", "flow"]), sampling, 0, False, MotionViews(8, 2, 0.0, True))
    batch = clips.__getitems__(list(range(8)))
    short = torch.from_numpy(index.video_frames[batch["videos"].numpy()] == 12)
    assert short.any() and not short.all()
    assert "rgb_padding" not in batch and batch["flow_padding"].shape == (16, 8)
    inputs = to_network_input(batch, torch.device("cpu"))
    assert (inputs["flow"].reshape(2, 8, 2, 8, 32, 32)[:, short, :, 6:] == 0).all()
    assert batch["flow_padding"].sum().item() == 2 * 2 * int(short.sum())
    assert inputs["rgb"].shape == (16, 3, 4, 32, 32) and set(inputs) == {"rgb", "flow", "labels", "videos", "samples"}


@given(
    st.integers(1, 60), st.integers(1, 5), st.lists(st.sampled_from([0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0]), min_size=2)
)
def test_smaller_shares_lie_within_larger_ones_and_no_class_is_empty(
    num_videos: int, num_classes: int, shares: list[float]
) -> None:
    ids = [f"v{number}" for number in range(num_videos)]
    labels = [(number % num_classes,) for number in range(num_videos)]
    kept = [kept_share(ids, labels, share) for share in sorted(shares)]
    for smaller, larger in zip(kept[:-1], kept[1:], strict=True):
        assert smaller <= larger
    for share, chosen in zip(sorted(shares), kept, strict=True):
        for label in set(labels):
            members = [id for id, own in zip(ids, labels, strict=True) if own == label]
            assert len(chosen & set(members)) == max(1, round(share * len(members)))


def test_a_share_of_the_videos_reaches_the_index(packed, index):
    place = (packed.layout, packed.name, "short36", None, packed.num_shards, 1, "train", False)
    half = build_index(*place, share=0.5)
    assert len(half) == 8 and set(half.ids) < set(index.ids)
    assert sorted(labels[0] for labels in half.labels) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert half.digest != build_index(*place).digest

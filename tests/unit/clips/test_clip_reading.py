import pickle

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from packed_set import PackedSet, make_packed_set

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import (
    ClipReader,
    MicroBatchSampler,
    TrainingClips,
    clip_loader,
    directional_labels,
)
from pipeline_lib.clips.index import OpenShards, build_index
from pipeline_lib.clips.protocol_clips import ProtocolClips
from pipeline_lib.clips.sampling import ClipRequest
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.training import Sampling
from pipeline_lib.errors import UserError
from pipeline_lib.media.shards import Shard

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(
        tmp_path_factory.mktemp("clips"), lengths=(12, 5), num_train=12, num_validation=4, without_motion=("v003",)
    )


def index_of(packed: PackedSet, motion: str | None = "exact", subset: str = "train"):
    return build_index(packed.layout, packed.name, "short36", motion, packed.num_shards, 1, subset)


def stored_frame(packed: PackedSet, index, video: int, frame: int) -> np.ndarray:
    shard = Shard(index.frames_paths[index.shards[video]])
    position = shard.index[index.ids[video]]
    return simplejpeg.decode_jpeg(shard.read(position, frame, frame + 1)[0])


def test_index_takes_what_every_needed_shard_holds(packed):
    both, rgb = index_of(packed), index_of(packed, motion=None)
    assert [*rgb.ids] == [f"v{number:03d}" for number in range(12)]
    assert [*both.ids] == [id for id in rgb.ids if id != "v003"]
    assert rgb.classes == ("down", "left", "right", "up")
    assert [labels[0] for labels in rgb.labels] == [number % 4 for number in range(12)]
    assert both.motion_bound == 4.0
    assert both.digest != rgb.digest
    assert len(index_of(packed, subset="validation")) == 4


def test_missing_things_are_named(packed, tmp_path):
    with pytest.raises(UserError, match="split 7"):
        build_index(packed.layout, packed.name, "short36", None, packed.num_shards, 7, "train")
    with pytest.raises(UserError, match="manifest of nothing"):
        build_index(packed.layout, "nothing", "short36", None, 1, 1, "train")
    with pytest.raises(UserError, match="no usable video in the test list"):
        build_index(packed.layout, packed.name, "short36", None, packed.num_shards, 1, "test")


def test_a_clip_is_the_stored_pixels(packed):
    index = index_of(packed)
    request = ClipRequest(0, 3, 4, crop=32, short_side=36, stride=2, vertical=0.0, horizontal=1.0, label=2)
    batch = ClipReader(index, ("rgb", "flow")).read([request])
    expected = [stored_frame(packed, index, 0, frame)[0:32, 16:48] for frame in (3, 5, 7, 9)]
    assert (batch["rgb"][0].numpy() == np.stack(expected)).all()
    assert batch["flow"].shape == (1, 4, 32, 32, 2)
    assert batch["labels"].tolist() == [2]


def test_short_videos_loop_and_reversal_plays_backwards(packed):
    index = index_of(packed)
    reader = ClipReader(index, ("rgb", "flow"))
    video = int(np.flatnonzero(index.video_frames == 5)[0])
    forwards = reader.read([ClipRequest(video, 0, 12, crop=32, short_side=36)])
    backwards = reader.read([ClipRequest(video, 0, 12, crop=32, short_side=36, reverse=True)])
    for name in ("rgb", "flow"):
        for position in range(12):
            assert (forwards[name][0, position] == forwards[name][0, position % 5]).all()
        assert (backwards[name].flip(1) == forwards[name]).all()
    assert not (forwards["rgb"][0, 0] == forwards["rgb"][0, 1]).all()


def test_resized_crops_equal_opencv_and_scale_the_flow(packed):
    index = index_of(packed)
    request = ClipRequest(2, 1, 2, crop=48, short_side=54, vertical=0.5, horizontal=0.5)
    batch = ClipReader(index, ("rgb", "flow")).read([request])
    whole = cv2.resize(stored_frame(packed, index, 2, 1), (72, 54), interpolation=cv2.INTER_LINEAR)
    assert (batch["rgb"][0, 0].numpy() == whole[3:51, 12:60]).all()
    assert batch["flow_scale"].tolist() == [[1.5, 1.5]]
    moving = to_network_input(batch, CPU)["flow"]
    # "right" moves by (2, 0) of a bound of 4: half of the range, 1.5 times as much after the resize.
    label = index.classes[index.labels[2][0]]
    assert label == "right"
    inside = moving[0, 0][moving[0, 0] > 0.6]
    assert inside.median() == pytest.approx(0.75, abs=0.02)


def test_zero_motion_is_exactly_zero_and_a_flip_negates_u(packed):
    index = index_of(packed)
    reader = ClipReader(index, ("rgb", "flow"))
    rows = range(3)
    plain = to_network_input(reader.read([ClipRequest(v, 0, 4, 32, 36) for v in rows]), CPU)
    flipped = to_network_input(reader.read([ClipRequest(v, 0, 4, 32, 36, flip=v != 1) for v in rows]), CPU)
    for video in rows:
        sign = 1 if video == 1 else -1
        same = (lambda x: x) if video == 1 else (lambda x: x.flip(-1))
        assert torch.equal(flipped["rgb"][video], same(plain["rgb"][video]))
        assert torch.equal(flipped["flow"][video, 0], sign * same(plain["flow"][video, 0]))
        assert torch.equal(flipped["flow"][video, 1], same(plain["flow"][video, 1]))
    assert (plain["flow"] == 0).any()
    assert plain["rgb"].min() >= -1
    assert plain["rgb"].max() <= 1
    assert plain["rgb"].is_contiguous(memory_format=torch.channels_last_3d)


def test_training_clips_depend_on_seed_and_sample_alone(packed):
    index = index_of(packed)
    sampling = Sampling(num_frames=4, crop=32, short_side=(36, 40))

    def batches(num_workers: int, first: int, seed: int = 0):
        clips = TrainingClips(ClipReader(index, ("rgb", "flow")), sampling, seed, horizontal_flip=True)
        return list(clip_loader(clips, MicroBatchSampler(first, 4, 6, [(0, 3), (3, 3)]), num_workers))

    whole, resumed, other = batches(0, 0), batches(2, 2), batches(0, 0, seed=1)
    assert len(whole) == 8
    for left, right in zip(whole[4:], resumed, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)
    assert not torch.equal(whole[0]["rgb"], other[0]["rgb"])
    seen = torch.cat([batch["videos"] for batch in whole])[: len(index)]
    assert sorted(seen.tolist()) == list(range(len(index)))
    flips = torch.cat([batch["flip"] for batch in whole])
    assert flips.any()
    assert not flips.all()


def test_flips_only_where_labels_survive_them(packed):
    index = index_of(packed)
    sampling = Sampling(num_frames=4, crop=32, short_side=(36, 36))
    clips = TrainingClips(ClipReader(index, ("rgb",)), sampling, 0, horizontal_flip=False)
    assert not any(clips.request(sample).flip for sample in range(100))
    starts = {clips.request(sample).start for sample in range(200)}
    assert starts == set(range(9))


def test_clips_whose_label_says_left_or_right_are_not_mirrored(packed):
    names = ("Pushing something from left to right", "Turning the camera RIGHT", "Bright lefty folding", "up-left")
    assert directional_labels(names) == {0, 1, 3}
    index = index_of(packed)
    sampling = Sampling(num_frames=4, crop=32, short_side=(36, 36))
    unmirrored = frozenset({index.labels[0][0]})
    clips = TrainingClips(ClipReader(index, ("rgb",)), sampling, 0, True, unmirrored)
    free = TrainingClips(ClipReader(index, ("rgb",)), sampling, 0, True)
    for sample in range(100):
        request, other = clips.request(sample), free.request(sample)
        assert request.flip == (other.flip and request.label not in unmirrored)
    assert any(clips.request(sample).flip for sample in range(100))
    assert any(free.request(sample).flip and free.request(sample).label in unmirrored for sample in range(100))


def test_a_protocols_clips_keep_their_order_and_travel_to_workers(packed):
    index = index_of(packed)
    sampling = Sampling(num_frames=4, crop=32, short_side=(36, 36))
    clips = ProtocolClips(index, Protocol(num_clips=2, num_crops=3), sampling, ("rgb",), [5, 1, 7, 0], 5)
    copied = pickle.loads(pickle.dumps(clips))
    assert torch.equal(copied[7, 4]["rgb"], clips[7, 4]["rgb"])
    alone, workers = (list(clips.loader(number, torch.device("cpu"), lambda _: False)) for number in (0, 2))
    assert [places for places, _ in alone] == [places for places, _ in workers] == list(clips.batches())
    assert [place for places, _ in alone for place in places] == [
        (row, clip) for row in (5, 1, 7, 0) for clip in range(6)
    ]
    for (places, batch), (_, other) in zip(alone, workers, strict=True):
        assert torch.equal(batch["rgb"], other["rgb"])
        assert batch["videos"].tolist() == [row for row, _ in places]


def test_open_shards_stay_below_their_limit(packed):
    index = index_of(packed)
    shards = OpenShards(limit=1)
    first = shards[index.frames_paths[0]]
    assert first.read_frames([0])
    assert shards[index.frames_paths[1]].read_frames([0])
    assert len(shards._open) == 1
    assert first._opened is None


def test_a_damaged_frame_is_named(packed, tmp_path):
    broken = make_packed_set(tmp_path, num_train=4, num_validation=0, num_shards=1)
    path = broken.layout.frames(broken.name, "short36", "000")
    import h5py

    with h5py.File(path, "r+") as file:
        file["blob"][:200] = 0
    index = index_of(broken)
    with pytest.raises(UserError, match=r"000\.h5 is damaged: video v000, frame 0: its bytes do not agree"):
        ClipReader(index, ("rgb",)).read([ClipRequest(0, 0, 4, 32, 36)])

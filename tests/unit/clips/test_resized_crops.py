"""Random resized crops: the rectangles are drawn as torchvision draws them, the pixels and the flow are theirs."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_set import PackedSet, make_packed_set, motion_jpeg
from pydantic import ValidationError
from scipy.stats import ks_2samp
from torchvision.transforms.v2 import RandomResizedCrop

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import ClipReader, TrainingClips
from pipeline_lib.clips.decoding import decode_frames, decode_motion
from pipeline_lib.clips.index import ClipIndex, build_index
from pipeline_lib.clips.sampling import AUGMENTATION, NUM_UNIFORM, ClipRequest, generator, random_rectangle
from pipeline_lib.clips.views import MotionViews, PairedClips
from pipeline_lib.configuration.training import Sampling

AREA, ASPECT = (0.3, 1.0), (0.5, 2.0)
USUAL = (3 / 4, 4 / 3)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("resized"), num_train=12)


@pytest.fixture(scope="module")
def index(packed: PackedSet) -> ClipIndex:
    return build_index(packed.layout, packed.name, "short36", "exact", packed.num_shards, 1, "train")


def sampling(**changes: object) -> Sampling:
    return Sampling.model_validate({"num_frames": 4, "crop": 32, "short_side": (36, 40), **changes})


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    aspect=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted).map(tuple),
    seed=st.integers(0, 2**31),
)
def test_rectangles_lie_inside_any_frame_and_within_their_ranges(height, width, area, aspect, seed):
    uniform = generator(seed, AUGMENTATION, 0).random(NUM_UNIFORM)
    top, left, new_height, new_width = random_rectangle(height, width, area, aspect, uniform)
    assert 0 <= top <= top + new_height <= height and new_height >= 1
    assert 0 <= left <= left + new_width <= width and new_width >= 1
    central = (top, left) == ((height - new_height) // 2, (width - new_width) // 2)
    if central and (new_height == height or new_width == width):
        return  # Perhaps the fallback, which the comparison with torchvision holds.
    # Sides are whole pixels: each is half a pixel off at most.
    shares = [(new_height + d) * (new_width + d) / (height * width) for d in (-0.5, 0.5)]
    ratios = [(new_width - 0.5) / (new_height + 0.5), (new_width + 0.5) / max(new_height - 0.5, 1e-9)]
    assert shares[0] <= area[1] + 1e-9 and shares[1] >= area[0] - 1e-9
    assert ratios[0] <= aspect[1] + 1e-9 and ratios[1] >= aspect[0] - 1e-9


@pytest.mark.parametrize(
    ("shape", "area", "aspect"),
    [((256, 341), AREA, ASPECT), ((256, 341), (0.08, 1.0), USUAL), ((200, 90), AREA, USUAL)],
)
def test_rectangles_are_distributed_as_torchvision_s(shape, area, aspect):
    count = 4000
    own = np.array(
        [
            random_rectangle(*shape, area, aspect, generator(0, AUGMENTATION, n).random(NUM_UNIFORM))
            for n in range(count)
        ]
    )
    torch.manual_seed(0)
    image = torch.empty(3, *shape)
    crop = RandomResizedCrop(32, scale=area, ratio=aspect)
    made = [crop.make_params([image]) for _ in range(count)]
    theirs = np.array([[one[name] for name in ("top", "left", "height", "width")] for one in made])

    def figures(drawn: np.ndarray) -> dict[str, np.ndarray]:
        top, left, height, width = drawn.T
        room = shape[0] - height, shape[1] - width
        return {
            "area": height * width,
            "aspect": np.log(width / height),
            "vertical": top / np.maximum(1, room[0]),
            "horizontal": left / np.maximum(1, room[1]),
        }

    for name, values in figures(own).items():
        # Two samples of one distribution of this size: a distance of 0.0436 in one of a thousand.
        assert ks_2samp(values, figures(theirs)[name]).statistic < 0.0436, name


@pytest.mark.parametrize("shape", [(20, 200), (200, 20), (7, 90), (30, 40)])
def test_where_nothing_fits_it_is_torchvision_s_central_rectangle(shape):
    # All of the area at an aspect that no such frame has, but the last, which is taken as a whole.
    crop = RandomResizedCrop(32, scale=(1.0, 1.0), ratio=USUAL)
    expected = crop.make_params([torch.empty(3, *shape)])
    uniform = np.full(NUM_UNIFORM, 0.5)
    found = random_rectangle(*shape, (1.0, 1.0), USUAL, uniform)
    assert found == tuple(expected[name] for name in ("top", "left", "height", "width"))


# Both shrink, both grow, one of each, and none changes.
@pytest.mark.parametrize("rectangle", [(10, 20, 90, 120), (3, 7, 20, 24), (5, 0, 24, 130), (40, 60, 48, 48)])
def test_pixels_are_those_of_an_independent_crop_and_resize(rectangle):
    random = np.random.default_rng(0)
    image = cv2.resize(random.integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    encoded = memoryview(simplejpeg.encode_jpeg(image, quality=95))
    out = np.empty((1, 48, 48, 3), dtype=np.uint8)
    decode_frames([encoded], ClipRequest(0, 0, 1, crop=48, short_side=64, rectangle=rectangle), out, "test")
    top, left, height, width = rectangle
    part = simplejpeg.decode_jpeg(encoded)[top : top + height, left : left + width]
    pixels = torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float()
    # Antialiased bilinear: a triangle over the shrinking axis where OpenCV averages a box.
    expected = torch.nn.functional.interpolate(pixels, (48, 48), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    difference = np.abs(out[0].astype(np.float32) - expected.numpy())
    assert difference.mean() < 1.0 and difference.max() < 12
    if (height, width) == (48, 48):
        assert (out[0] == part).all()


@pytest.mark.parametrize("rectangle", [(4, 10, 64, 32), (0, 0, 32, 128), (17, 3, 40, 96)])
def test_a_constant_flow_is_scaled_by_each_axis_own_factor(rectangle):
    height, width, crop, u, v = 90, 150, 64, 1.0, -2.0
    flow = np.broadcast_to(np.array([u, v], np.float32), (height, width, 2))
    out = np.empty((1, crop, crop, 2), dtype=np.uint8)
    request = ClipRequest(0, 0, 1, crop=crop, short_side=64, rectangle=rectangle)
    encoded = memoryview(motion_jpeg(flow, 8.0))
    factors = decode_motion([encoded], height, width, request, out, "test")
    assert factors == (crop / rectangle[3], crop / rectangle[2])
    batch = {
        "flow": torch.from_numpy(out)[None],
        "flow_scale": torch.tensor([factors]),
        "flip": torch.zeros(1, dtype=torch.bool),
    }
    moving = to_network_input(batch, torch.device("cpu"))["flow"][0, :, 0]
    # A point of the frame that moves by (u, v) moves by that times the stretch in the crop; half a step of 1/127.
    for channel, value in enumerate((u * crop / rectangle[3], v * crop / rectangle[2])):
        assert moving[channel].flatten().tolist() == pytest.approx([value / 8] * crop**2, abs=0.6 / 127 * max(factors))


def test_only_the_rectangle_differs_from_what_is_drawn_without_it(index):
    reader = ClipReader(index, ("rgb", "flow"))
    with_area = TrainingClips(reader, sampling(area=AREA, aspect=ASPECT), 3, horizontal_flip=True)
    without = TrainingClips(reader, sampling(), 3, horizontal_flip=True)
    requests = [with_area.request(sample) for sample in range(60)]
    assert [replace(one, rectangle=None) for one in requests] == [without.request(sample) for sample in range(60)]
    assert len({one.rectangle for one in requests}) > 50
    # What the settings drew before rectangles were: the six numbers that the stream starts with.
    for sample in range(20):
        uniform = generator(3, AUGMENTATION, sample).random(6)
        one = without.request(sample)
        assert (one.start, one.short_side) == (int(uniform[0] * 9), 36 + int(uniform[1] * 5))
        assert (one.vertical, one.horizontal, one.flip) == (uniform[2], uniform[3], uniform[4] < 0.5)


def test_rgb_and_flow_of_a_clip_share_the_rectangle(index):
    reader = ClipReader(index, ("rgb", "flow"))
    clips = TrainingClips(reader, sampling(area=AREA, aspect=ASPECT), 0, horizontal_flip=False)
    batch = clips.__getitems__(list(range(12)))
    overlaps, places = [], 0
    for row, request in enumerate(clips.request(sample) for sample in range(12)):
        _, _, height, width = request.rectangle
        assert batch["flow_scale"][row].tolist() == pytest.approx([32 / width, 32 / height])
        # The square is what moves: where there is flow, the colours are not the background's.
        moving = (batch["flow"][row].int() - 128).abs().amax(-1) > 30
        colours = batch["rgb"][row].int()
        background = colours[~moving].float().median(0).values
        distance = (colours - background).abs().amax(-1)
        if 20 < moving.sum() < moving.numel() - 20:
            places += 1
            overlaps.append((distance[moving].float().median() / distance[~moving].float().mean().clamp_min(1)).item())
    assert places > 6 and np.median(overlaps) > 3


def test_views_are_cut_at_random_and_motion_clips_take_the_centre(index):
    clips = PairedClips(
        ClipReader(index, ("rgb", "flow")), sampling(area=AREA), 0, True, MotionViews(3, 2, threshold=0.0, jitter=True)
    )
    visual, motion = zip(*(clips.requests(sample) for sample in range(30)), strict=True)
    assert len({view.rectangle for views in visual for view in views}) > 45
    assert all(view.rectangle is None for views in motion for view in views)
    batch = clips.__getitems__([0, 1, 2])
    assert batch["rgb"].shape == (6, 4, 32, 32, 3) and batch["flow_scale"].tolist() == [[1.0, 1.0]] * 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": (0.0, 1.0)}, "area.*shares"),
        ({"area": (0.3, 1.2)}, "area.*shares"),
        ({"area": (0.9, 0.3)}, "area.*shares"),
        ({"area": AREA, "aspect": (2.0, 0.5)}, "aspect"),
        ({"area": AREA, "aspect": (0.0, 2.0)}, "aspect"),
        ({"area": AREA, "augmentation": "none"}, "none.*centre"),
    ],
)
def test_what_cannot_be_cut_out_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        sampling(**changes)

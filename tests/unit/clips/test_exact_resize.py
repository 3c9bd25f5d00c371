"""``resize: [h, w]``: every frame is resized to exactly this, whatever its aspect, in training and in evaluation."""

import numpy as np
import pytest
import simplejpeg
import torch
from packed_set import motion_jpeg

from pipeline_lib.clips.batches import normalise_flow
from pipeline_lib.clips.decoding import decode_frames, decode_motion
from pipeline_lib.clips.protocol_clips import first_equals, video_requests
from pipeline_lib.clips.sampling import NUM_UNIFORM, ClipRequest, StoredVideo, crop_corner, random_request
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.training import Sampling

R2PLUS1D = Sampling(num_frames=1, crop=112, resize=(128, 171))
S3DG = Sampling(num_frames=1, crop=224, resize=(256, 256))


def seen_columns(request: ClipRequest, height: int, width: int) -> tuple[float, float]:
    """First and last column of a stored frame that a clip shows, read off a ramp along x."""
    columns = np.arange(width, dtype=np.float32)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., :] = np.round(255 * columns / (width - 1))[None, :, None]
    encoded = memoryview(simplejpeg.encode_jpeg(image, quality=100, colorsubsampling="444"))
    out = np.empty((1, request.crop, request.crop, 3), np.uint8)
    decode_frames([encoded], request, out, "ramp")
    rows = out[0, :, :, 1].astype(np.float64).mean(axis=0) * (width - 1) / 255
    return float(rows[0]), float(rows[-1])


@pytest.mark.parametrize(
    ("sampling", "shape", "share"),
    [
        (R2PLUS1D, (180, 320), 112 / 171),
        (R2PLUS1D, (256, 340), 112 / 171),
        (S3DG, (256, 340), 224 / 256),
        (S3DG, (180, 320), 224 / 256),
        # With the aspect kept a crop of 112 sees less than half of a frame of 16:9.
        (Sampling(num_frames=1, crop=112, short_side=(128, 128)), (180, 320), 112 / 228),
    ],
)
def test_a_crop_sees_its_share_of_the_resized_width(sampling, shape, share):
    height, width = shape
    (request,) = video_requests(Protocol(num_clips=1), sampling, StoredVideo(0, 10, height, width))
    first, last = seen_columns(request, height, width)
    assert (last - first) / width == pytest.approx(share, abs=0.012)
    assert (first + last) / 2 == pytest.approx((width - 1) / 2, abs=2.0)


def test_three_crops_lie_along_the_longer_side_of_the_resized_frame():
    video = StoredVideo(0, 10, 180, 320)
    requests = video_requests(Protocol(num_clips=1, num_crops=3), R2PLUS1D, video)
    assert [crop_corner(128, 171, request) for request in requests] == [(8, 0), (8, 30), (8, 59)]
    # A portrait frame is made a landscape one.
    requests = video_requests(Protocol(num_clips=1, num_crops=3), R2PLUS1D, StoredVideo(0, 10, 320, 180))
    assert [crop_corner(128, 171, request) for request in requests] == [(8, 0), (8, 30), (8, 59)]
    # Where the crop is the whole frame, three crops are one.
    requests = video_requests(Protocol(num_clips=1, num_crops=3, crop=256), S3DG, video)
    assert first_equals(requests, 180, 320) == [0, 0, 0]
    # A larger crop enlarges the frame as a whole.
    (request,) = video_requests(Protocol(num_clips=1, crop=256), R2PLUS1D, video)
    assert request.resized(180, 320) == (256, 342)


@pytest.mark.parametrize(("shape", "sampling"), [((180, 320), R2PLUS1D), ((256, 340), S3DG), ((120, 96), R2PLUS1D)])
def test_displacements_are_scaled_each_by_its_axis_own_factor(shape, sampling):
    height, width = shape
    u, v, bound = 6.0, -3.0, 20.0
    encoded = memoryview(motion_jpeg(np.broadcast_to(np.array([u, v], np.float32), (height, width, 2)), bound))
    (request,) = video_requests(Protocol(num_clips=1), sampling, StoredVideo(0, 10, height, width))
    out = np.empty((1, sampling.crop, sampling.crop, 2), np.uint8)
    factors = decode_motion([encoded], height, width, request, out, "flow")
    flow = bound * normalise_flow(torch.from_numpy(out)[None], torch.tensor([factors], dtype=torch.float32))
    assert sampling.resize is not None
    new_height, new_width = sampling.resize
    # The quantisation's step is 20 / 127 px.
    assert flow[0, 0].mean().item() == pytest.approx(u * new_width / width, abs=0.1 * new_width / width)
    assert flow[0, 1].mean().item() == pytest.approx(v * new_height / height, abs=0.1 * new_height / height)


def test_random_crops_of_a_resized_frame_reach_every_corner_and_a_random_rectangle_ignores_it():
    video = StoredVideo(0, 40, 180, 320)
    random = np.random.default_rng(0)
    requests = [random_request(R2PLUS1D, random.random(NUM_UNIFORM), video, 0, -1, True) for _ in range(3000)]
    corners = {crop_corner(*request.resized(180, 320), request) for request in requests}
    assert {top for top, _ in corners} == set(range(17)) and {left for _, left in corners} == set(range(60))
    assert all(request.resized(180, 320) == (128, 171) and request.short_side is None for request in requests)
    # `area` cuts its rectangles out of the stored frame: the same ones with and without a resize.
    cut = {"num_frames": 1, "crop": 112, "area": (0.3, 1.0)}
    resized, usual = Sampling(resize=(128, 171), **cut), Sampling(short_side=(128, 128), **cut)
    for _ in range(20):
        uniform = random.random(NUM_UNIFORM)
        rectangles = [random_request(one, uniform, video, 0, -1, True).rectangle for one in (resized, usual)]
        assert rectangles[0] == rectangles[1] is not None


def test_a_size_is_set_one_way_and_holds_the_crop():
    assert Sampling().short_side == (256, 256) and Sampling().resize is None
    assert Sampling(short_side=None).short_side == (256, 256)
    assert S3DG.short_side is None
    with pytest.raises(ValueError, match=r"resize: \[128, 171\] and short_side \[128, 128\] exclude each other"):
        Sampling(crop=112, resize=(128, 171), short_side=(128, 128))
    with pytest.raises(ValueError, match=r"crop: 130 does not fit into resize, \[128, 171\]"):
        Sampling(crop=130, resize=(128, 171))
    # From a file, as strictly as the configuration is read.
    read = Sampling.model_validate_json('{"crop": 112, "resize": [128, 171]}', strict=True)
    assert read.resize == (128, 171)
    assert Sampling.model_validate_json(read.model_dump_json(), strict=True) == read

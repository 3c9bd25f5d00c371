"""Grad-CAM equals captum's and its closed form, says why an endpoint cannot be used, and is drawn over the frames."""

import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from small_networks import noise, small
from small_tree import CLASSES, CROP, HEIGHT, make_run, make_tree, training_specification

from pipeline_lib import load
from pipeline_lib.__main__ import main
from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.objectives import MotionDistillation
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.gradcam import class_activation, endpoints_with_space
from pipeline_lib.evaluation.prediction import _write_frames
from pipeline_lib.flow.film import read_video
from pipeline_lib.models.network import HookedNetwork, StagedNetwork, VideoNetwork
from pipeline_lib.reporting.gradcam_pictures import overlay, write_gradcam


def frozen(name: str, **options: object) -> tuple[VideoNetwork, torch.Tensor]:
    """A network as ``load`` gives it, and clips for it."""
    network = small(name, **options).eval().requires_grad_(False)
    # Fresh statistics of normalisations would shrink activations until no gradient is left.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_var.fill_(1e-2)
    return network, noise(network, height=64, width=64)


def assert_equal_maps(found: torch.Tensor | None, expected: torch.Tensor) -> None:
    """The same up to rounding of the largest value, which is not 0."""
    largest = float(expected.detach().max())
    assert found is not None and largest > 0
    torch.testing.assert_close(found / largest, expected.detach() / largest, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [("s3dg_slim", "Mixed_4c"), ("s3d_paper", "Mixed_5c"), ("r2plus1d_18", "conv3_x"), ("modist_r18", "res4")],
)
def test_the_map_is_captums(name: str, endpoint: str) -> None:
    network, clip = frozen(name)
    assert isinstance(network, StagedNetwork)
    found = class_activation(network, clip, endpoint, 3, "space_time")
    network.requires_grad_(True)
    oracle = LayerGradCam(network, network.stages[endpoint]).attribute(clip, 3, relu_attributions=True)
    assert_equal_maps(found, oracle[:, 0])


@pytest.mark.parametrize("over", ["space", "space_time"])
def test_behind_a_mean_and_a_linear_layer_the_map_is_the_classifier_applied_at_each_place(over: str) -> None:
    network, clip = frozen("r3d_18")
    last = network.endpoints[-2]
    with torch.no_grad():
        activation = network.forward_features(clip, [last])[last]
    weights = network.head.fc.weight[2]
    expected = F.relu(torch.einsum("c,bcthw->bthw", weights, activation)) / activation[0, 0].numel()
    found = class_activation(network, clip, last, 2, over)
    assert_equal_maps(found, expected)


def test_each_time_step_has_weights_of_its_own() -> None:
    network, clip = frozen("s3dg_slim")
    endpoint = "Mixed_4c"
    found = class_activation(network, clip, endpoint, 1, "space")
    # The gradient again, through the pixels, as autograd gives it without any of our code.
    kept: list[torch.Tensor] = []
    handle = network.stages[endpoint].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = network(clip.requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), kept[0])
    assert_equal_maps(found, F.relu((gradient.mean((3, 4), keepdim=True) * kept[0]).sum(1)))
    alike = class_activation(network, clip, endpoint, 1, "space_time")
    assert found is not None and alike is not None
    assert not torch.allclose(found / found.max(), alike / alike.max(), rtol=0.01)


@pytest.mark.parametrize(
    ("name", "endpoint"), [("torchvision/swin3d_t", "features.2"), ("torchvision/mvit_v2_s", "blocks.1")]
)
def test_tokens_become_a_map(name: str, endpoint: str) -> None:
    network, clip = frozen(name)
    assert isinstance(network, HookedNetwork)
    found = class_activation(network, clip, endpoint, 0, "space_time")
    kept: list[torch.Tensor] = []
    module = network.body.get_submodule(endpoint)
    handle = module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = network(clip.requires_grad_())
    handle.remove()
    raw, grid = kept[0] if isinstance(kept[0], tuple) else (kept[0], None)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), raw)
    if grid is not None:
        # The class token is no place; the others are places in the order of the grid.
        raw, gradient = (one[:, 1:].unflatten(1, grid) for one in (raw, gradient))
    assert_equal_maps(found, F.relu((gradient.mean((1, 2, 3), keepdim=True) * raw).sum(-1)))


def test_what_the_classifier_does_not_read_has_no_map() -> None:
    network, clip = frozen("torchvision/mvit_v2_s")
    # The last block's tokens: the classifier reads the class token alone.
    assert class_activation(network, clip, network.endpoints[-2], 0, "space") is None


def test_every_family_has_endpoints_with_space() -> None:
    for name in ("s3dg_slim", "r2d_18", "r2plus1d_18", "modist_r18", "s3dg_predicted_flow", "torchvision/swin3d_t"):
        network, clip = frozen(name)
        spatial = endpoints_with_space(network, clip.shape[2], 64)
        assert spatial and "logits" not in spatial
        assert class_activation(network, clip, [*spatial][-1], 0, "space") is not None, name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output root with a network that sees RGB and one that sees flow."""
    layout = make_tree(tmp_path_factory.mktemp("gradcam") / "output")
    make_run(layout, training_specification("student"))
    kind = Motion(method="farneback", bound=8.0)
    flow = training_specification("teacher", "flow")
    make_run(layout, flow.model_copy(update={"motion": "farneback", "motion_kind": kind}))
    return layout.root


@pytest.fixture(scope="module")
def video(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first second of a real clip, small and lossless."""
    path = tmp_path_factory.mktemp("video") / "x.mkv"
    _write_frames(read_video(media / "clips/abseiling.mp4", HEIGHT, 24)[0], 24.0, path)
    return path


@pytest.mark.media
def test_a_video_gets_its_maps_beside_the_frames_that_were_seen(root: Path, video: Path) -> None:
    student = load("student", root, device="cpu", short_side=HEIGHT)
    found = student.gradcam(video, "air drumming", "Mixed_3c", num_clips=2)
    assert found.maps.shape == (2, 8, CROP, CROP) and found.maps.dtype == np.float32
    assert found.frames.shape == (2, 8, CROP, CROP, 3) and found.maps.min() >= 0
    assert found.shares.max() == 1 and found.class_name == CLASSES[1]
    # What the network saw is what is shown: the same clips give the same activation.
    clip = torch.from_numpy(found.frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    coarse = class_activation(student.trained.network, clip, "Mixed_3c", 1, "space")
    expected = F.interpolate(coarse[:, None], (8, CROP, CROP), mode="trilinear")[:, 0]
    assert_equal_maps(torch.from_numpy(found.maps), expected)
    # The first eight and the last eight of 24 frames.
    np.testing.assert_allclose(found.seconds * 24, [range(8), range(16, 24)], atol=1e-6)
    own = student.gradcam(video)
    # Mixed_3c is the deepest with 4×4 positions where 32 pixels go in.
    assert (own.class_name, own.probability) == student.predict(video, num_clips=1).top(1)[0]
    assert own.endpoint == "Mixed_3c"


@pytest.mark.media
def test_pictures_and_films_show_two_networks(
    root: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gradcam", str(video), "--experiment", "student", "--against", "teacher", "--root", str(root)]
    command += ["--short-side", str(HEIGHT), "--device", "cpu", "--threads", "1"]
    command += ["--endpoint", "Mixed_3c", "--class", "air drumming", "--moments", "3"]
    assert main([*command, "--out", str(tmp_path / "cam.png")]) == 0
    said = capsys.readouterr().out
    assert "student at Mixed_3c: air drumming (" in said and "teacher at Mixed_3c: air drumming (" in said
    networks = [load(name, root, device="cpu", short_side=HEIGHT) for name in ("student", "teacher")]
    cams = [network.gradcam(video, "air drumming", "Mixed_3c") for network in networks]
    # From Python the same picture, byte for byte.
    for name in ("again.png", "cam.svg", "cam.mp4"):
        write_gradcam(tmp_path / name, cams, 3)
    assert (tmp_path / "cam.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    text = (tmp_path / "cam.svg").read_text(encoding="utf-8")
    for words in ("student, Mixed_3c", "teacher, Mixed_3c", "air drumming", "speaks for the class"):
        assert words in text
    # Three moments of the frames and of two networks.
    assert len(re.findall(r"<image", text)) == 9 + 1
    with av.open(str(tmp_path / "cam.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 8 and frames[0].shape[1] > 2 * frames[0].shape[0]


def test_colours_lie_over_grey_frames_from_dark_to_light() -> None:
    frame = np.full((4, 6, 3), (250, 10, 60), dtype=np.uint8)
    share = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    shown = overlay(frame, share).reshape(-1, 3).astype(float)
    # In grey print the order stays: luminance by ITU-R BT.601.
    assert (np.diff(shown @ (0.299, 0.587, 0.114)) > 0).all()


@pytest.mark.media
def test_what_cannot_be_explained_is_refused_in_one_sentence(root: Path, video: Path) -> None:
    student = load("student", root, device="cpu", short_side=HEIGHT)
    refused = {
        ("juggling", None): "student knows no class `juggling`",
        (None, "logits"): "endpoint logits is one number per class",
        (
            None,
            "Mixed_5c",
        ): r"Mixed_5c has one position for clips of 32×32 pixels.*take one of Conv2d_1a_7x7, .*Mixed_4f",
        (None, "Mixed_9z"): "no endpoint Mixed_9z",
    }
    for (name, endpoint), sentence in refused.items():
        with pytest.raises(UserError, match=sentence):
            student.gradcam(video, name, endpoint)
    specification = student.trained.specification.model_copy(update={"objective": MotionDistillation()})
    pretrained = replace(student, trained=replace(student.trained, specification=specification))
    with pytest.raises(UserError, match="student was trained without a classifier"):
        pretrained.gradcam(video)


def test_a_wrong_option_is_refused_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    for options, sentence in ((["--out", "x.gif"], "give a .png or .svg"), (["--clips", "0"], "--clips 0")):
        out = [] if "--out" in options else ["--out", "x.png"]
        assert main(["gradcam", "absent.mp4", "--experiment", "student", *out, *options]) == 2
        assert sentence in capsys.readouterr().err

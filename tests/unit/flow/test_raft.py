"""RAFT with real weights, and the tricks that make it cheaper, against torchvision's own forward."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from flow_material import moving_frames, read_flo, specification, textured, write_frames_shard
from torchvision.models.optical_flow.raft import CorrBlock

from pipeline_lib.configuration.data import Generated, Motion
from pipeline_lib.configuration.motions import RAFTParameters
from pipeline_lib.errors import UserError
from pipeline_lib.flow.endpoint_error import endpoint_error
from pipeline_lib.flow.flow_edges import create as create_edges
from pipeline_lib.flow.flow_edges import sobel_magnitude
from pipeline_lib.flow.methods import create_method
from pipeline_lib.flow.motion_stage import extract_motion
from pipeline_lib.flow.quantisation import Quantisation, decode_image
from pipeline_lib.flow.raft.lookup import CorrelationPyramid
from pipeline_lib.flow.raft.method import RAFT, create, pad_frames
from pipeline_lib.flow.raft.weights import from_original, load_weights
from pipeline_lib.flow.strength_stage import measure_strength
from pipeline_lib.generation.motion_classes import CLASSES, Pose
from pipeline_lib.generation.videos import Scene, draw_scene, render, true_flow
from pipeline_lib.media.shards import Shard

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small(weights: Path) -> RAFT:
    torch.set_num_threads(1)
    return RAFT(RAFTParameters(model="small", weights=str(weights / "raft-small.pth")), CPU)


def chairs(media: Path, index: int) -> tuple[torch.Tensor, np.ndarray]:
    """A FlyingChairs pair, uint8 (2, 3, H, W) RGB, and its true flow."""
    folder = media / "flow_pairs"
    frames = [cv2.imread(str(folder / f"{index}img{side}.ppm"))[..., ::-1].copy() for side in (0, 1)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), read_flo(folder / f"{index}flow.flo")


@pytest.mark.media
@pytest.mark.parametrize("index", [0, 1])
def test_trained_weights_give_a_trained_networks_error(media: Path, small: RAFT, index: int) -> None:
    frames, truth = chairs(media, index)
    flow = small.pairs(frames, [(0, 1)], 1)[0].numpy()
    assert endpoint_error(flow, truth).mean() < 2.0
    still = endpoint_error(np.zeros_like(truth), truth).mean()
    assert endpoint_error(flow, truth).mean() < 0.5 * still
    assert np.median(endpoint_error(flow, truth)) < 0.2


@pytest.mark.media
def test_equals_torchvisions_forward(media: Path, small: RAFT) -> None:
    """Features shared along the video, only the last iteration upsampled: the same flow, forwards and backwards."""
    frames, _ = chairs(media, 0)
    third = torch.roll(frames[1], 3, dims=2)
    video = torch.stack([frames[0], frames[1], third])[:, :, 100:252, 60:260]
    pairs = [(0, 1), (1, 2), (2, 0)]
    ours = small.pairs(video, pairs, 2)
    with torch.inference_mode():
        scaled = video.float() / 127.5 - 1
        for row, (first, second) in zip(ours, pairs, strict=True):
            plain = small.network(scaled[first : first + 1], scaled[second : second + 1], small.iterations)[-1][0]
            assert endpoint_error(row.numpy(), plain.numpy()).mean() < 0.01


@pytest.mark.parametrize("model", ["large", "small"])
def test_less_work_gives_torchvisions_flow(tmp_path: Path, model: Literal["large", "small"]) -> None:
    """The context's share of the units and the look-ups, computed another way: both networks, random weights."""
    torch.manual_seed(3)
    plain = getattr(torchvision.models.optical_flow, f"raft_{model}")(weights=None).eval()
    torch.save(plain.state_dict(), tmp_path / "random.pth")
    parameters = RAFTParameters(model=model, weights=str(tmp_path / "random.pth"), iterations=3)
    frames = torch.from_numpy(textured(150, 180, 3))[None, None].repeat(3, 3, 1, 1)[..., :136, :160].clone()
    frames[1], frames[2] = frames[1].roll((5, -7), (1, 2)), frames[2].roll((-20, 30), (1, 2))
    pairs = [(0, 1), (2, 0)]
    flow = RAFT(parameters, CPU).pairs(frames, pairs, 2)
    with torch.inference_mode():
        scaled = frames.float() / 127.5 - 1
        wanted = torch.cat([plain(scaled[a : a + 1], scaled[b : b + 1], 3)[-1] for a, b in pairs])
    assert wanted.norm(dim=1).mean() > 0.1
    assert endpoint_error(flow.numpy(), wanted.numpy()).mean() < 1e-3


def test_look_ups_are_torchvisions_also_outside() -> None:
    """Points far outside every level, on its rim and between pixels; the values of ``CorrBlock``."""
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(2, 16, 17, 20, generator=generator) for _ in range(2))
    points = torch.rand(2, 2, 17, 20, generator=generator) * 60 - 20
    points[0, :, :, :3] = torch.tensor([1e6, -1e6, 3.0])
    reference = CorrBlock(num_levels=4, radius=3)
    reference.build_pyramid(first, second)
    found = CorrelationPyramid(first, second, 4, 3).look_up(points)
    torch.testing.assert_close(found, reference.index_pyramid(points), atol=1e-4, rtol=0)
    assert found.abs().max() > 1


@pytest.mark.media
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.soak)])
def test_compiled_is_the_same_flow(
    media: Path, weights: Path, small: RAFT, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """What is compiled is traced whole, runs on other sizes and batches, and gives the same values."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    parameters = RAFTParameters(model="small", weights=str(weights / "raft-small.pth"), iterations=2, compile=True)
    torch._dynamo.utils.counters.clear()
    compiled = RAFT(parameters, CPU)
    monkeypatch.undo()
    frames, _ = chairs(media, 0)
    few = RAFT(parameters.model_copy(update={"compile": False}), CPU)
    for height, width, pairs in ((128, 160, [(0, 1), (1, 0)]), (136, 144, [(0, 1)])):
        part = frames[:, :, 100 : 100 + height, 60 : 60 + width]
        difference = endpoint_error(compiled.pairs(part, pairs, 2).numpy(), few.pairs(part, pairs, 2).numpy())
        assert difference.mean() < 1e-3
    # Encoders and update, each at most once per size and once with its sizes left open.
    assert 3 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 9
    torch._dynamo.reset()


def every_fifth_frame(label: str) -> Scene:
    """A generated scene at five times its speed: the true flow is exact, some 10–40 px."""
    generated = Generated(num_frames=6, short_side=128, seed=5)
    scene = draw_scene(generated, "validation", CLASSES["motions"].index(label))
    pose, kept = scene.pose, slice(None, None, 5)
    fast = Pose(pose.x[kept], pose.y[kept], pose.angle[kept], pose.radius[kept])
    return replace(scene, pose=fast, camera=scene.camera[kept], gain=scene.gain[kept])


@pytest.mark.media
@pytest.mark.parametrize("label", ["move_left", "move_right", "move_up", "move_down"])
def test_fast_motion_is_raft_s_and_not_tvl1_s(small: RAFT, label: str) -> None:
    scene = every_fifth_frame(label)
    frames, (truth, valid) = render(scene), true_flow(scene)
    moving = valid[0] & (np.hypot(*truth[0].transpose(2, 0, 1)) > 5)
    assert moving.sum() > 500
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    fields = {
        "raft": small.pairs(torch.from_numpy(frames).permute(0, 3, 1, 2), [(0, 1)], 1)[0].numpy(),
        "tvl1": create_method(Motion(method="tvl1"), CPU, 1).motion(grey, 1)[0].numpy(),
    }
    errors = {name: endpoint_error(field, truth[0].transpose(2, 0, 1))[moving].mean() for name, field in fields.items()}
    assert errors["raft"] < 0.5 * errors["tvl1"], errors


@pytest.mark.media
def test_sixteen_bits_stay_near_float32(media: Path, weights: Path, small: RAFT) -> None:
    reduced = RAFT(RAFTParameters(model="small", weights=str(weights / "raft-small.pth"), autocast_cpu="bfloat16"), CPU)
    for index in (0, 1):
        frames, _ = chairs(media, index)
        exact, rounded = (raft.pairs(frames, [(0, 1)], 1)[0].numpy() for raft in (small, reduced))
        assert 0 < endpoint_error(rounded, exact).mean() < 0.05


@pytest.mark.media
def test_awkward_and_small_sizes(small: RAFT) -> None:
    for height, width in ((133, 150), (61, 84), (16, 200)):
        frames = np.stack([textured(height + 8, width + 8, 3)[4:-4, 4 - 2 * t : width + 4 - 2 * t] for t in (0, 1)])
        rgb = torch.from_numpy(frames)[:, None].repeat(1, 3, 1, 1)
        flow = small.pairs(rgb, [(0, 1)], 1)
        assert flow.shape == (1, 2, height, width)
        assert bool(torch.isfinite(flow).all())
        assert abs(float(flow[0, 0, height // 4 : -height // 4, width // 4 : -width // 4].median()) - 2) < 0.5


def test_padding_is_whole_blocks_and_at_least_128() -> None:
    padded, (top, left) = pad_frames(torch.arange(60.0 * 131).reshape(1, 1, 60, 131).repeat(1, 3, 1, 1))
    assert padded.shape == (1, 3, 128, 136) and (top, left) == (34, 2)
    assert float(padded[0, 0, 34, 2]) == 0.0 and float(padded[0, 0, 0, 0]) == 0.0


def test_key_map_covers_the_large_network() -> None:
    """Every name of torchvision's raft_large comes from exactly one name of the original (core/extractor.py)."""
    state = torchvision.models.optical_flow.raft_large(weights=None).state_dict()
    original: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name = key.replace("feature_encoder.", "fnet.").replace("context_encoder.", "cnet.")
        if name.startswith(("fnet", "cnet")):
            for number in (1, 2, 3):
                name = name.replace(f".convnormrelu{number}.0.", f".conv{number}.")
                name = name.replace(f".convnormrelu{number}.1.", f".norm{number}.")
            name = name.replace(".convnormrelu.0.", ".conv1.").replace(".convnormrelu.1.", ".norm1.")
            name = name.replace("net.conv.", "net.conv2.")
        name = name.replace("motion_encoder.convcorr", "encoder.convc").replace(
            "motion_encoder.convflow", "encoder.convf"
        )
        name = name.replace("motion_encoder.conv.0", "encoder.conv")
        for letter in "zrq":
            for number in (1, 2):
                name = name.replace(f"recurrent_block.convgru{number}.conv{letter}", f"gru.conv{letter}{number}")
        if name.startswith("update_block.encoder.conv") and name[25:27] in ("c1", "c2", "f1", "f2"):
            name = name.replace(".0.", ".")
        name = name.replace("mask_predictor.convrelu.0", "update_block.mask.0")
        name = name.replace("mask_predictor.conv", "update_block.mask.2")
        original["module." + name] = value
        if ".downsample.1." in name:
            original["module." + name.replace(".downsample.1.", ".norm3.")] = value
    renamed = from_original(original)
    assert set(renamed) == set(state)
    assert all(renamed[key] is state[key] for key in state)


@pytest.mark.media
def test_wrong_weights_say_what_is_wrong(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = torchvision.models.optical_flow
    good = weights / "raft-small.pth"
    with pytest.raises(UserError, match="other size"):
        load_weights(models.raft_large(weights=None), "large", str(good))
    with pytest.raises(UserError, match="does not exist"):
        load_weights(models.raft_small(weights=None), "small", str(tmp_path / "none.pth"))
    damaged = tmp_path / "raft-small.pth"
    damaged.write_bytes(good.read_bytes()[:-1000])
    with pytest.raises(UserError, match="not a PyTorch state"):
        load_weights(models.raft_small(weights=None), "small", str(damaged))
    state = torch.load(good, map_location="cpu", weights_only=True)
    torch.save(state, damaged)
    if damaged.read_bytes() != good.read_bytes():
        with pytest.raises(UserError, match="none of princeton-vl"):
            load_weights(models.raft_small(weights=None), "small", str(damaged))
    with pytest.raises(UserError, match="download it again"):
        load_weights(models.raft_small(weights=None), "small", str(good), "0" * 64)
    with pytest.raises(UserError, match="C_T_V2"):
        load_weights(models.raft_small(weights=None), "small", "C_T_V9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(UserError, match=r"checkpoints/raft_small_C_T_V2"):
        load_weights(models.raft_small(weights=None), "small", "C_T_V2")


@pytest.mark.media
def test_named_weights_come_from_the_hub_cache(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = torchvision.models.optical_flow
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    url = models.Raft_Small_Weights["C_T_V2"].url
    cached = tmp_path / "checkpoints" / url.rpartition("/")[2]
    cached.parent.mkdir()
    state = from_original(torch.load(weights / "raft-small.pth", map_location="cpu", weights_only=True))
    torch.save(state, cached)
    network = models.raft_small(weights=None)
    load_weights(network, "small", "C_T_V2")
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])


@pytest.mark.media
def test_stage_stores_backward_flow_of_five_frames(tmp_path: Path, weights: Path) -> None:
    frames = write_frames_shard(tmp_path / "frames.h5", {"v": moving_frames(7, 96, 128, (1, 0))})
    parameters = {"model": "small", "weights": str(weights / "raft-small.pth"), "iterations": 6}
    extract_motion(specification(method="raft", gap=-5, parameters=parameters), frames, tmp_path / "motion.h5", 2)
    shard = Shard(tmp_path / "motion.h5")
    row = Quantisation.from_record(shard.record).dequantise(decode_image(shard.read(0, 6, 7)[0], 96))
    assert np.median(row[0, 20:-20, 20:-20]) == pytest.approx(-5, abs=0.4)
    assert shard.record["parameters"]["method_parameters"]["weights_sha256"].startswith("c7d41b9c")


def test_sobel_against_opencv() -> None:
    image = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    gx = cv2.Sobel(image, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.Sobel(image, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_REPLICATE)
    ours = sobel_magnitude(torch.from_numpy(image)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(ours, np.hypot(gx, gy), atol=1e-5)


def test_flow_edges_outline_what_moves_alone(tmp_path: Path) -> None:
    """A square that moves over a still ground: edges around it, none inside it or far away."""
    ground, thing = textured(96, 96, 1), textured(40, 40, 2)
    frames = np.repeat(ground[None], 3, axis=0)
    for t in range(3):
        frames[t, 28:68, 20 + 3 * t : 60 + 3 * t] = thing
    kind = Motion(method="flow_edges", gap=-1, bound=10.0, parameters={"source": "tvl1"})
    method = create_edges(kind, CPU, 1)
    edges = method.motion(frames, -1)
    assert edges.shape == (2, 1, 96, 96) and method.quantisation.zero == 0
    outline, inside, outside = edges[0, 0, 46:50, 20:30].max(), edges[0, 0, 44:52, 40:48].mean(), edges[0, 0, 80:, 80:]
    assert outline > 3 and inside < 0.7 and outside.max() < 0.2
    write_frames_shard(tmp_path / "frames.h5", {"v": frames})
    wanted = specification(method="flow_edges", gap=-1, bound=10.0, parameters={"source": "tvl1"})
    extract_motion(wanted, tmp_path / "frames.h5", tmp_path / "edges.h5", 1)
    stored = Shard(tmp_path / "edges.h5").record["parameters"]["quantisation"]
    assert (stored["channels"], stored["zero"], stored["scale"], stored["bound"]) == (["edges"], 0, 255, 10.0)


@pytest.mark.media
def test_rafts_flow_edges_outline_the_true_motion(media: Path, weights: Path, tmp_path: Path) -> None:
    """MoDist's edges from trained weights on FlyingChairs: near those of the true flow, and in the strength table."""
    source = {"model": "small", "weights": str(weights / "raft-small.pth")}
    wanted = specification(
        method="flow_edges", gap=1, bound=10.0, parameters={"source": "raft", "source_parameters": source}
    )
    for index in (0, 1):
        frames, truth = chairs(media, index)
        video = frames.permute(0, 2, 3, 1).numpy()
        folder = tmp_path / str(index)
        write_frames_shard(folder / "frames.h5", {"v": video})
        extract_motion(wanted, folder / "frames.h5", folder / "edges.h5", 2)
        shard = Shard(folder / "edges.h5")
        quantisation = Quantisation.from_record(shard.record)
        stored = decode_image(shard.read(0, 0, 1)[0], video.shape[1])
        edges = quantisation.dequantise(stored)[0]
        magnitude = torch.from_numpy(np.linalg.norm(truth, axis=0))[None, None].float()
        true_edges = sobel_magnitude(magnitude)[0, 0].clamp(0, 10).numpy()
        # Blurred a little: an edge that lies a pixel beside the true one is found all the same.
        ours, theirs = (cv2.GaussianBlur(image.astype(np.float32), (0, 0), 3) for image in (edges, true_edges))
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.5
        figures = measure_strength(folder / "edges.h5", folder / "edges.strength.parquet")
        assert figures == {"videos": 1, "frames": 2}
        table = pq.read_table(folder / "edges.strength.parquet")
        strength = table["strength"][0].values.to_numpy()
        assert strength[0] == pytest.approx(edges.mean() / 10, rel=1e-4)
        assert strength[0] > 0.02


@pytest.mark.media
def test_device_batches_shrink_with_the_frames(weights: Path) -> None:
    kind = Motion(method="raft", parameters={"model": "small", "weights": str(weights / "raft-small.pth")})
    method = create(kind, CPU, 1)
    assert method.pairs_per_call(256, 340) == 16
    method._device = torch.device("cuda")
    assert method._batch(1024, 1360) < method._batch(512, 680) < method._batch(256, 340)

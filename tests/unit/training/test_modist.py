import json

import numpy as np
import pytest
import torch
from packed_set import PackedSet, make_packed_set, measure_strengths, tiny_modist, tiny_training
from real_processes import train_in_processes
from test_distributed import losses

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.index import build_index
from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.objectives import Model, MotionDistillation
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.training.checkpoints import Checkpoints
from pipeline_lib.training.distribution import Ranks
from pipeline_lib.training.inputs import training_clips
from pipeline_lib.training.networks import build_network, load_network
from pipeline_lib.training.objectives import modist
from pipeline_lib.training.objectives.modist import ContrastForward
from pipeline_lib.training.run import train
from pipeline_lib.training.trainer import Trainer
from pipeline_lib.training.weights import load_weights


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    made = make_packed_set(tmp_path_factory.mktemp("modist"), lengths=(12, 16))
    measure_strengths(made)
    return made


def attached(specification: TrainingSpecification) -> tuple[modist.MotionDistillationObjective, ContrastForward]:
    torch.manual_seed(0)
    objective = modist.build(specification)
    network = build_network(specification.model, 4, "rgb", 0.0)
    module = objective.attach(network)
    assert isinstance(module, ContrastForward)
    return objective, module


def batches(packed: PackedSet, specification: TrainingSpecification, count: int) -> list[dict[str, torch.Tensor]]:
    place = (packed.layout, packed.name, "short36", "exact", packed.num_shards, 1, "train")
    clips = training_clips(build_index(*place, with_strengths=True), modist.build(specification), specification)
    rows = [list(range(4 * step, 4 * step + 4)) for step in range(count)]
    return [to_network_input(clips.__getitems__(samples), torch.device("cpu")) for samples in rows]


class Bank:
    """A memory bank in plain Python: the newest rows, oldest first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: list[tuple[np.ndarray, int]] = []

    def enqueue(self, keys: np.ndarray, videos: list[int]) -> None:
        self.rows = (self.rows + list(zip(keys, videos, strict=True)))[-self.size :]

    def info_nce(self, queries: np.ndarray, keys: np.ndarray, videos: list[int], temperature: float) -> float:
        losses = []
        for query, key, video in zip(queries, keys, videos, strict=True):
            positive = np.exp(query @ key / temperature)
            negative = sum(np.exp(query @ row / temperature) for row, own in self.rows if own != video)
            losses.append(-np.log(positive / (positive + negative)))
        return float(np.mean(losses))


@pytest.mark.parametrize("terms", [["visual", "motion", "cross"], ["visual", "cross"], ["visual"]])
def test_the_loss_is_equation_3_with_banks_that_know_the_videos(packed, terms):
    specification = tiny_modist(packed, objective={"losses": terms, "temperature": 0.2})
    objective, module = attached(specification)
    # Fixed statistics: an embedding is then a function of its clip alone.
    module.eval()
    pathways = ["visual", "motion"] if "cross" in terms else ["visual"]
    banks = {name: Bank(10) for name in pathways}
    masked = 0
    for batch in batches(packed, specification, 8):
        module.begin_step()
        clips = {"visual": batch["rgb"].split(4), "motion": batch["flow"].split(4) if "flow" in batch else ()}
        videos = batch["videos"].tolist()
        with torch.no_grad():
            online = {"visual": module.network, "motion": module.motion}
            embedded = {}
            for name in pathways:
                slow = module.momentum[name]
                query = module.projections[name](online[name](clips[name][0]))
                key = slow["projection"](slow["trunk"](clips[name][1]))
                embedded[name] = [(x / x.norm(dim=1, keepdim=True)).double().numpy() for x in (query, key)]
        (vq, vk), (mq, mk) = embedded["visual"], embedded.get("motion", (None, None))
        expected = {"visual": banks["visual"].info_nce(vq, vk, videos, 0.2)}
        if "motion" in terms:
            expected["motion"] = banks["motion"].info_nce(mq, mk, videos, 0.2)
        if "cross" in terms:
            first = banks["visual"].info_nce(vq, mk, videos, 0.2)
            expected["cross"] = first + banks["motion"].info_nce(mq, vk, videos, 0.2)
        masked += sum(own in videos for _, own in banks["visual"].rows)
        found = objective.losses(module, batch)
        assert {name: found[name].item() for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert found["total"].item() == pytest.approx(sum(expected.values()), rel=1e-4, abs=1e-5)
        module.end_step(Ranks())
        for name in pathways:
            banks[name].enqueue(embedded[name][1], videos)
    assert masked > 0, "no batch met one of its own videos in the bank: the masks were not put to the test"


def test_gradients_reach_both_online_pathways_and_no_slow_one(packed):
    specification = tiny_modist(packed)
    objective, module = attached(specification)
    module.train()
    before = {name: value.clone() for name, value in module.momentum.named_parameters()}
    first, second = batches(packed, specification, 2)
    for batch in (first, second):
        module.begin_step()
        losses = objective.losses(module, batch)
        if batch is first:
            # Nothing to be told apart from: the banks' empty rows are masked.
            assert losses["total"].item() == pytest.approx(0.0, abs=1e-6)
            module.end_step(Ranks())
    losses["total"].backward()
    online = {name: value for name, value in module.named_parameters() if not name.startswith("momentum.")}
    assert {name.split(".")[0] for name in online} == {"network", "motion", "projections"}
    assert all(parameter.grad is not None for parameter in online.values())
    assert sum(float(parameter.grad.abs().sum() > 0) for parameter in online.values()) > 0.9 * len(online)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.momentum.parameters())
    with torch.no_grad():
        for parameter in online.values():
            parameter += 1.0
    module.begin_step()
    for name, value in module.momentum.named_parameters():
        assert torch.allclose(value, before[name] + 0.1, atol=1e-5), name


def test_a_pretraining_leaves_the_visual_trunk(packed, tmp_path):
    specification = tiny_modist(packed, recipe={"steps": 12, "reestimate_batch_norm": 2})
    assert train(specification, packed.root, tmp_path / "a", 0) == 0
    assert train(specification, packed.root, tmp_path / "b", 2) == 0
    assert (tmp_path / "a" / "weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()
    tensors, _ = load_weights(tmp_path / "a" / "weights.safetensors")
    assert not any(name.startswith(("head.", "motion.", "momentum.", "banks.")) for name in tensors)
    network, metadata = load_network(tmp_path / "a" / "weights.safetensors")
    assert metadata["provenance"]["stage"] == "train"
    features = network(torch.rand(2, 3, 4, 32, 32))
    assert features.shape == (2, 64)
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert {"total", "visual", "motion", "cross", "positive", "knn_top1"} <= set(lines[-1])


class StoppedError(Exception):
    pass


def test_a_resumed_run_is_the_uninterrupted_one_banks_included(packed, tmp_path, monkeypatch):
    specification = tiny_modist(packed, recipe={"steps": 9, "checkpoint_steps": 4})
    finals: list[dict[str, torch.Tensor]] = []
    original = Trainer.final_network

    def final(self):
        finals.append({name: value.clone() for name, value in self.module.state_dict().items()})
        return original(self)

    monkeypatch.setattr(Trainer, "final_network", final)
    assert train(specification, packed.root, tmp_path / "whole", 0) == 0

    step = Trainer._one_step

    def stop(self, *arguments):
        if self.step == 6:
            raise StoppedError
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_one_step", stop)
    with pytest.raises(StoppedError):
        train(specification, packed.root, tmp_path / "cut", 0)
    header = json.loads(next((tmp_path / "cut/checkpoints").glob("step_*.pt")).open("rb").readline())
    found = Checkpoints(tmp_path / "cut/checkpoints", header["digest"], 2).latest()
    assert found is not None and found[0] == 4
    state = found[1]["module"]
    assert sorted(set(state["banks.visual.video_index"].tolist())) == sorted(
        set(state["banks.motion.video_index"].tolist())
    )
    assert int(state["banks.visual.cursor"]) == 16 % 10
    monkeypatch.setattr(Trainer, "_one_step", step)
    assert train(specification, packed.root, tmp_path / "cut", 0) == 0
    whole, resumed = finals
    assert {name for name in whole if name.startswith("banks.")} == {
        f"banks.{pathway}.{part}"
        for pathway in ("visual", "motion")
        for part in ("embeddings", "video_index", "labels", "cursor")
    }
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_two_processes_give_the_losses_of_one(packed, tmp_path):
    # The banks' ten rows are no multiple of the batch of four: a wrong order of the gathered keys would overwrite
    # other rows, and the losses would part.
    specification = tiny_modist(packed, recipe={"steps": 8, "schedule": {"milestones": [20]}})
    train(specification, packed.root, tmp_path / "one", 0)
    printed = train_in_processes(specification, packed, tmp_path / "two", 2)
    assert "2 clips per forward pass × 2 processes" in printed
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3, abs=1e-4)
    assert losses(tmp_path / "one")[-1] > 1.0
    one, two = (load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("one", "two"))
    for name, tensor in one.items():
        assert torch.allclose(two[name].float(), tensor.float(), rtol=1e-2, atol=1e-3), name


@pytest.mark.parametrize("standardised", [False, True])
def test_a_linear_classifier_leaves_the_trunk_as_it_is(packed, tmp_path, monkeypatch, standardised):
    pretraining = tiny_modist(packed, recipe={"steps": 4})
    source = packed.layout.experiment("modist_tiny", "1", "0")
    train(pretraining, packed.root, source, 0)
    specification = tiny_training(
        packed,
        experiment="linear",
        stage="finetune",
        model=pretraining.model.model_dump(),
        start="modist_tiny/1-0",
        objective={"name": "classification", "frozen": True, "standardised": standardised},
        recipe={"steps": 4, "dropout": 0.0, "batch_norm_momentum": None},
    )
    clip = torch.rand(3, 3, 8, 32, 32)
    trained_with = {}

    def final(self):
        trained_with["logits"] = self.module.eval()(clip, ())["logits"].detach()
        return original(self)

    original = Trainer.final_network
    monkeypatch.setattr(Trainer, "final_network", final)
    train(specification, packed.root, tmp_path / "linear", 0)
    trunk, _ = load_weights(source / "weights.safetensors")
    trained, metadata = load_weights(tmp_path / "linear" / "weights.safetensors")
    assert {name for name in trained if name not in trunk} == {"head.fc.weight", "head.fc.bias"}
    for name, value in trunk.items():
        assert torch.equal(value, trained[name]), name
    assert trained["head.fc.weight"].abs().sum() > 0 and trained["head.fc.bias"].abs().sum() > 0
    assert any(key.startswith("experiments/") for key in metadata["provenance"]["inputs"])
    # What is kept is one linear layer, and it says what the trained module said.
    network, _ = load_network(tmp_path / "linear" / "weights.safetensors")
    assert torch.allclose(network(clip), trained_with["logits"], atol=1e-4)


CLIPS = {"num_frames": 4, "crop": 32, "short_side": [36, 40]}


def test_videos_without_a_start_that_the_threshold_allows_are_counted_in_the_log_and_in_the_weights(
    packed, tmp_path, capsys
):
    # The squares move 14 × 14 of 36 × 48 pixels by 2 px along one of two axes: 0.11 px on average, in every frame.
    for name, threshold, none in (("low", 0.05, 0), ("high", 0.5, 24)):
        specification = tiny_modist(packed, objective={"threshold": threshold}, recipe={"steps": 1})
        train(specification, packed.root, tmp_path / name, 0)
        assert f"{none} of 24 videos have no start that it allows" in "".join(capsys.readouterr())
        metadata = load_weights(tmp_path / name / "weights.safetensors")[1]
        assert metadata["motion_starts"] == {"videos": 24, "none_allowed": none, "one_allowed": 0}
        sidecar = json.loads((tmp_path / name / "weights.safetensors.run.json").read_text())
        assert sidecar["figures"]["motion_starts"] == metadata["motion_starts"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": {"losses": ["visual", "motion"]}}, "cross"),
        ({"recipe": {"synchronise_batch_norm": False}}, "synchronise_batch_norm"),
        ({"recipe": {"validation_steps": 2}}, "validation_steps"),
        ({"objective": {"threshold": 1.0, "threshold_of": "clip_share"}}, "threshold.*share, below 1"),
        ({"recipe": {"sampling": {"spacing": "segments", **CLIPS}}}, "sampling.*segments.*whole video"),
    ],
)
def test_settings_that_cannot_work_are_refused(packed, changes, words):
    with pytest.raises((UserError, ValueError), match=words):
        tiny_modist(packed, **changes)


def test_the_motion_pathway_takes_any_kind_of_motion():
    settings = MotionDistillation(motion_network={"name": "modist_motion_r50", "options": {"depth": 18, "width": 8}})
    for method, channels in (("flow_edges", 1), ("frame_difference", 1), ("tvl1", 2), ("raft", 2)):
        kind = Motion(method=method, gap=1, bound=10.0)
        torch.manual_seed(0)
        objective = modist.MotionDistillationObjective(settings, kind)
        network = build_network(Model(name="modist_r18", options={"width": 8}), 4, "rgb")
        module = objective.attach(network)
        assert module.motion.input.channels == channels

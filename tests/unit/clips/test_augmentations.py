import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packed_set import PackedSet, make_packed_set, tiny_training
from torchvision.transforms import v2
from torchvision.tv_tensors import Video

from pipeline_lib.clips.augmentations import draw_erased, draw_mixture, erase, mix, rand_augment
from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import Batch, ClipReader, TrainingClips
from pipeline_lib.clips.index import build_index
from pipeline_lib.clips.sampling import ERASING, MIXING, RAND_AUGMENT, generator
from pipeline_lib.configuration.training import Erasing, Mixing, RandAugment, Sampling
from pipeline_lib.errors import UserError
from pipeline_lib.training.objectives.base import batch_top1, cross_entropy
from pipeline_lib.training.run import train
from pipeline_lib.training.signals import EXIT_INTERRUPTED
from pipeline_lib.training.trainer import Trainer

CPU = torch.device("cpu")
RANDOM = torch.Generator().manual_seed(0)
CLIP = torch.randint(0, 256, (3, 24, 32, 3), dtype=torch.uint8, generator=RANDOM)
INPUT = torch.randn((4, 3, 2, 16, 16), generator=RANDOM)
ALL = {"rand_augment": RandAugment(), "erasing": Erasing(probability=0.5)}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("augmented"), num_train=16, num_validation=0)


def seed_torch(purpose: int, counter: int) -> None:
    torch.manual_seed(int(generator(7, purpose, counter).integers(2**62)))


def test_rand_augment_is_torchvisions_with_the_same_random_numbers():
    for sample in range(20):
        seed_torch(RAND_AUGMENT, sample)
        expected = v2.RandAugment(3, 12)(Video(CLIP.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        found = rand_augment(CLIP.numpy(), RandAugment(num_ops=3, magnitude=12), 7, sample)
        assert np.array_equal(found, expected.numpy()), sample


def test_colour_operations_leave_every_pixel_where_it_is():
    # One bright pixel on black: where it is, a frame differs most from its other pixels.
    clip = np.zeros((2, 24, 32, 3), dtype=np.uint8)
    clip[:, 5, 20] = 200
    moved = 0
    for sample in range(60):
        found = rand_augment(clip, RandAugment(num_ops=1, magnitude=20, operations="colours"), 0, sample)
        for frame in found.astype(int).sum(axis=3):
            distance = np.abs(frame - np.median(frame))
            assert distance.max() == distance[5, 20], sample
        everything = rand_augment(clip, RandAugment(num_ops=1, magnitude=20), 0, sample)
        moved += everything[0, 5, 20].max() == 0
    assert moved > 5


def test_erasing_takes_torchvisions_rectangle_and_the_same_one_in_all_frames_and_in_flow():
    settings, lost = Erasing(probability=0.6, area=(0.1, 0.4)), 0
    for sample in range(30):
        seed_torch(ERASING, sample)
        expected = v2.RandomErasing(p=0.6, scale=(0.1, 0.4), ratio=settings.aspect)(Video(INPUT[0].transpose(0, 1)))
        rectangle = draw_erased(settings, 16, 7, sample)
        found = erase(INPUT[:1].clone(), [rectangle])
        assert torch.equal(found[0].transpose(0, 1), expected.as_subclass(torch.Tensor)), sample
        lost += rectangle != [0, 0, 0, 0]
    assert 10 < lost < 28


@pytest.mark.parametrize(
    ("settings", "transform"),
    [(Mixing(mixup=0.8), v2.MixUp(alpha=0.8, num_classes=5)), (Mixing(cutmix=1.0), v2.CutMix(num_classes=5))],
)
def test_clips_and_labels_are_mixed_as_torchvision_mixes_them(settings, transform):
    labels, logits = torch.tensor([0, 3, 3, 1]), torch.randn((4, 5), generator=RANDOM)
    for step in range(5):
        seed_torch(MIXING, step)
        torch.rand(1)
        clips, shares = transform(Video(INPUT), labels)
        mixture = draw_mixture(settings, 16, 7, step)
        assert mixture is not None and (mixture.box is None) == (settings.mixup > 0)
        partners = torch.tensor([3, 0, 1, 2])
        assert torch.equal(mix(INPUT.clone(), partners, mixture), clips.as_subclass(torch.Tensor))
        batch = {"labels": labels, "other_labels": labels[partners], "share": torch.tensor(mixture.share)}
        # λ · CE(a) + (1 − λ) · CE(b) is the cross-entropy with the mixed labels as probabilities.
        for smoothing in (0.0, 0.1):
            expected = F.cross_entropy(logits, shares, label_smoothing=smoothing)
            assert cross_entropy(logits, batch, smoothing) == pytest.approx(float(expected), rel=1e-5)
        right = shares[torch.arange(4), logits.argmax(dim=1)]
        assert float(batch_top1(logits, batch)) == pytest.approx(float(right.mean()), abs=1e-6)


def test_both_kinds_take_turns_and_the_probability_is_that_of_a_step():
    drawn = [draw_mixture(Mixing(mixup=0.2, cutmix=1.0, probability=0.5), 16, 0, step) for step in range(400)]
    mixed = [one for one in drawn if one is not None]
    assert abs(len(mixed) / 400 - 0.5) < 0.08
    assert abs(sum(one.box is None for one in mixed) / len(mixed) - 0.5) < 0.1
    assert all(0 <= one.share <= 1 for one in mixed)


def clips_of(packed: PackedSet, **recipe: object) -> TrainingClips:
    index = build_index(packed.layout, packed.name, "short36", "exact", packed.num_shards, 1, "train")
    sampling = Sampling(num_frames=4, crop=32, short_side=(36, 36), **ALL)
    return TrainingClips(ClipReader(index, ("rgb", "flow")), sampling, 7, True, global_batch=8, **recipe)


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.8), Mixing(cutmix=1.0), None])
def test_a_step_is_the_same_however_it_is_divided_into_passes(packed, mixing):
    clips = clips_of(packed, mixing=mixing)

    def network_input(samples: range) -> Batch:
        return to_network_input(clips.__getitems__(list(samples)), CPU)

    whole = network_input(range(8, 16))
    assert len(whole["rgb"]) == len(whole["flow"]) == len(whole["labels"]) == 8
    for first, last in ((8, 9), (9, 12), (12, 16)):
        part = network_input(range(first, last))
        for name in ("rgb", "flow", "labels", "samples", *(["other_labels"] if mixing else [])):
            assert torch.equal(part[name], whole[name][first - 8 : last - 8]), name


def test_student_and_teacher_see_the_same_rectangle_and_the_same_mixture(packed):
    mixing = Mixing(cutmix=1.0)
    plain = to_network_input(clips_of(packed).__getitems__(list(range(8))), CPU)
    mixed = to_network_input(clips_of(packed, mixing=mixing).__getitems__(list(range(8))), CPU)
    mixture = draw_mixture(mixing, 32, 7, 0)
    assert mixture is not None and mixture.box is not None
    left, top, right, bottom = mixture.box
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    assert inside.any()
    for name in ("rgb", "flow"):
        for clip in range(8):
            assert torch.equal(mixed[name][clip][..., ~inside], plain[name][clip][..., ~inside])
            assert torch.equal(mixed[name][clip][..., inside], plain[name][clip - 1][..., inside])
    assert mixed["other_labels"].tolist() == plain["labels"].roll(1).tolist()
    assert float(mixed["share"]) == pytest.approx(1 - float(inside.float().mean()))


def test_an_interrupted_training_ends_with_the_bytes_of_an_undisturbed_one(packed, tmp_path, monkeypatch):
    sampling = {"rand_augment": {}, "erasing": {"probability": 0.5}}
    recipe = {"steps": 4, "mixing": {"mixup": 0.8, "cutmix": 1.0}, "batch_norm_batch": 2, "sampling": sampling}
    specification = tiny_training(packed, recipe=recipe)
    whole, stopped, plain = (tmp_path / name for name in ("whole", "stopped", "plain"))
    train(specification, packed.root, whole, 0)
    original = Trainer._forward

    def stop_in_step_one(self: Trainer, *arguments: object) -> object:
        if self.step == 1:
            self.machine.request.signal = signal.SIGTERM
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_forward", stop_in_step_one)
        assert train(specification, packed.root, stopped, 0) == EXIT_INTERRUPTED
    # The clips of workers are those of the process itself.
    train(specification, packed.root, stopped, 1)
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    train(tiny_training(packed, recipe={"steps": 4, "batch_norm_batch": 2}), packed.root, plain, 0)
    assert (plain / "metrics.jsonl").read_bytes() != (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "flow", "motion": "exact", "recipe": {"sampling": {"rand_augment": {}}}}, "flow has no colours"),
        (
            {"objective": {"name": "flow_regression"}, "motion": "exact", "recipe": {"sampling": {"rand_augment": {}}}},
            "operations: `all` moves the pixels",
        ),
        (
            {"objective": {"name": "flow_regression"}, "motion": "exact", "recipe": {"mixing": {"mixup": 1.0}}},
            "mixing: the objective `flow_regression` learns the flow of one clip",
        ),
        ({"recipe": {"mixing": {}}}, "mix nothing"),
        ({"recipe": {"mixing": {"mixup": 1.0}, "global_batch": 1}}, "set at least 2"),
        ({"recipe": {"sampling": {"erasing": {}, "augmentation": "none"}}}, "erasing: drawn at random"),
        ({"recipe": {"sampling": {"erasing": {"area": [0.4, 0.2]}}}}, "is no range of positive numbers"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(packed, changes, message):
    with pytest.raises((UserError, ValueError), match=message):
        tiny_training(packed, **changes)

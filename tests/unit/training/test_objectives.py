import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline_lib.configuration.objectives import Classification, Distillation
from pipeline_lib.errors import UserError
from pipeline_lib.training.objectives.classification import ClassificationObjective
from pipeline_lib.training.objectives.distillation import Adapter, DistillationObjective, distance, resampling

STUDENT = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0], [2.0, 2.0, 2.0]])
TEACHER = torch.tensor([[1.0, 0.0, 3.0], [1.0, -1.0, -1.0], [2.0, 5.0, 2.0]])
# By hand: squared differences 4, 1 + 4, 9: 18 in all, over 9 elements, or over N − 1 = 2.


def fixed(**outputs: torch.Tensor):
    return lambda _clip, names: {name: outputs[name] for name in ("logits", *names)}


def test_equation_2_by_hand():
    assert distance("mse", STUDENT, TEACHER).item() == pytest.approx(18 / 9)
    assert distance("mse_literal", STUDENT, TEACHER).item() == pytest.approx(18 / 2)
    assert distance("mse_literal", STUDENT[:1], TEACHER[:1]).item() == pytest.approx(4.0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_torchs(temperature):
    expected = F.kl_div(
        F.log_softmax(STUDENT / temperature, 1), F.softmax(TEACHER / temperature, 1), reduction="batchmean"
    )
    assert distance("kl", STUDENT, TEACHER, temperature).item() == pytest.approx(
        temperature**2 * expected.item(), rel=1e-5
    )
    assert distance("kl", TEACHER, TEACHER, temperature).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("weight", "action_weight"), [(1.0, 1.0), (100.0, 1.0), (1.0, 0.0)])
def test_equation_1_weighs_the_parts_and_only_the_student_learns(weight, action_weight):
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    labels = torch.tensor([2, 0, 1])
    objective = DistillationObjective(Distillation(weight=weight, action_weight=action_weight), "rgb", "flow")
    batch = {"rgb": torch.zeros(3), "flow": torch.zeros(3), "labels": labels}
    losses = objective.losses(fixed(logits=student), batch, fixed(logits=teacher))
    cross_entropy = F.cross_entropy(STUDENT, labels).item()
    assert losses["action"].item() == pytest.approx(cross_entropy)
    assert losses["distillation"].item() == pytest.approx(2.0)
    assert losses["total"].item() == pytest.approx(action_weight * cross_entropy + weight * 2.0, rel=1e-6)
    losses["total"].backward()
    assert teacher.grad is None
    expected = weight * 2 * (STUDENT - TEACHER) / 9
    if action_weight == 0:
        assert torch.allclose(student.grad, expected)
    assert objective.modalities == ("rgb", "flow")


def test_an_endpoint_is_distilled_where_the_shapes_agree():
    settings = Distillation(endpoint="Mixed_4f", weight=100.0)
    objective = DistillationObjective(settings, "rgb", "flow")
    batch = {"rgb": torch.zeros(3), "flow": torch.zeros(3), "labels": torch.tensor([0, 1, 2])}
    own, target = torch.randn(3, 8, 2, 4, 4), torch.randn(3, 8, 2, 4, 4)
    losses = objective.losses(fixed(logits=STUDENT, Mixed_4f=own), batch, fixed(logits=TEACHER, Mixed_4f=target))
    assert losses["distillation"].item() == pytest.approx(((own - target) ** 2).mean().item())
    with pytest.raises(UserError, match=r"Mixed_4f has the shape \(8, 2, 4, 4\) in the student and \(9, 2, 4, 4\)"):
        wider = torch.randn(3, 9, 2, 4, 4)
        objective.losses(fixed(logits=STUDENT, Mixed_4f=own), batch, fixed(logits=TEACHER, Mixed_4f=wider))


def test_an_unknown_endpoint_is_named():
    network = nn.Identity()
    network.endpoints = ("Mixed_4c", "logits")  # type: ignore[assignment]
    with pytest.raises(UserError, match="has no 'Mixed_9z'; it has logits, Mixed_4c"):
        DistillationObjective(Distillation(endpoint="Mixed_9z"), "rgb", "flow").attach(network)


def test_classification_is_torchs_cross_entropy():
    labels = torch.tensor([2, 0, 1])
    objective = ClassificationObjective(Classification(label_smoothing=0.1), "flow")
    losses = objective.losses(fixed(logits=STUDENT), {"flow": torch.zeros(3), "labels": labels})
    assert losses["total"].item() == pytest.approx(F.cross_entropy(STUDENT, labels, label_smoothing=0.1).item())
    assert losses["top1"].item() == pytest.approx(1 / 3)
    assert objective.modalities == ("flow",)


@pytest.mark.parametrize(("size", "target"), [(2, 6), (6, 2), (5, 3), (3, 5), (4, 4)])
def test_an_axis_is_averaged_where_it_gets_shorter_and_interpolated_where_it_gets_longer(size, target):
    x = torch.randn(1, 1, size)
    shorter = F.adaptive_avg_pool1d(x, target)
    expected = shorter if target < size else F.interpolate(x, target, mode="linear")
    assert torch.allclose(x @ resampling(size, target).T, expected, atol=1e-6)


def test_an_adapter_projects_the_channels_and_resamples_the_grid():
    adapter = Adapter((3, 4, 7, 7), (5, 2, 14, 7))
    x = torch.randn(2, 3, 4, 7, 7)
    projected = F.conv3d(x, adapter.convolution.weight, adapter.convolution.bias)
    expected = F.interpolate(projected, (4, 14, 7), mode="trilinear").unflatten(2, (2, 2)).mean(3)
    assert torch.allclose(adapter(x), expected, atol=1e-5)
    assert set(adapter.state_dict()) == {"convolution.weight", "convolution.bias"}


def test_pooled_features_need_the_teachers_channels_alone():
    settings = Distillation(endpoint="a", teacher_endpoint="b", pooled=True)
    objective = DistillationObjective(settings, "rgb", "flow")
    batch = {"rgb": torch.zeros(3), "flow": torch.zeros(3), "labels": torch.tensor([0, 1, 2])}
    own, target = torch.randn(3, 8, 2, 4, 4), torch.randn(3, 8, 1, 7, 7)
    losses = objective.losses(fixed(logits=STUDENT, a=own), batch, fixed(logits=TEACHER, b=target))
    expected = F.mse_loss(own.mean((2, 3, 4)), target.mean((2, 3, 4)))
    assert losses["distillation"].item() == pytest.approx(expected.item())


def test_logits_are_distilled_from_logits_alone():
    with pytest.raises(ValueError, match="logits are distilled from logits"):
        Distillation(endpoint="blocks.1", teacher_endpoint="logits")
    with pytest.raises(ValueError, match="logits are distilled from logits"):
        Distillation(teacher_endpoint="Mixed_4f")

"""The first 20 losses of each objective: a refactor must not change them.

``UPDATE_GOLDEN=1 pytest tests/unit/training/test_golden_losses.py`` writes them anew, for a change that is meant.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from packed_set import PackedSet, make_packed_set, measure_strengths, tiny_modist, tiny_teacher, tiny_training

from pipeline_lib.artefacts.fingerprint import code_fingerprint
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.training.run import train

GOLDEN = Path(__file__).with_name("golden_losses.json")
OBJECTIVES: dict[str, dict[str, object]] = {
    "classification": {"name": "classification"},
    "distillation_logits": {"name": "distillation"},
    "distillation_mixed_4f": {"name": "distillation", "endpoint": "Mixed_4f", "weight": 100.0},
    "distillation_kl": {"name": "distillation", "distance": "kl", "temperature": 2.0},
    "distillation_pooled": {"name": "distillation", "endpoint": "Mixed_5c", "pooled": True, "weight": 50.0},
    "without_action_loss": {"name": "distillation", "action_weight": 0.0},
    "flow_regression": {"name": "flow_regression", "unit": "bound"},
    "modist": {"name": "modist"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackedSet, TrainingSpecification]:
    packed = make_packed_set(tmp_path_factory.mktemp("golden"), num_train=8, num_validation=0)
    measure_strengths(packed)
    teacher = tiny_teacher(packed, recipe={"steps": 2})
    train(teacher, packed.root, packed.layout.experiment("flow_tiny", "1", "0"), 0)
    return packed, teacher


def measured(name: str, trained: tuple[PackedSet, TrainingSpecification], output: Path) -> list[float]:
    packed, teacher = trained
    objective = OBJECTIVES[name]
    changes: dict[str, object] = {"objective": objective, "motion": "exact"}
    if objective["name"] == "distillation":
        changes["teacher"] = teacher
    recipe = {"steps": 20, "checkpoint_steps": 100, "schedule": {"base_rate": 0.001, "milestones": [15]}}
    kind = tiny_modist if name == "modist" else tiny_training
    train(kind(packed, recipe=recipe, **changes), packed.root, output, 0)
    return [json.loads(line)["total"] for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_those_recorded(name, trained, tmp_path):
    losses = measured(name, trained, tmp_path / name)
    here = {
        "torch": torch.__version__.split("+")[0],
        "cpu": torch.backends.cpu.get_cpu_capability(),
        # A network may be made faster by summing in another order; the trainer and the objectives may not change a bit.
        "network": code_fingerprint(
            [f"pipeline_lib.models.{name}" for name in ("inception3d", "decoders", "slow_resnet")]
        ),
    }
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"losses": {}}
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps({**here, "losses": {**golden["losses"], name: losses}}, indent=1) + "\n")
        return
    assert len(losses) == 20
    if here == {name: golden[name] for name in here}:
        assert losses == golden["losses"][name]
    else:
        assert losses == pytest.approx(golden["losses"][name], rel=1e-4)

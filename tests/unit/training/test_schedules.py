import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.configuration.training import Recipe, Schedule
from pipeline_lib.errors import UserError
from pipeline_lib.training.batch_plan import plan_batches
from pipeline_lib.training.schedules import learning_rate


def recipe(**changes: object) -> Recipe:
    values = {
        "source": "test",
        "optimiser": {},
        "schedule": {"base_rate": 0.1, "milestones": [60_000, 70_000], "restarts": [75_000]},
        "steps": 80_000,
        "global_batch": 336,
        "batch_norm_batch": 6,
        "sampling": {},
        **changes,
    }
    return Recipe.model_validate(values)


def test_step_schedule_is_the_papers():
    schedule = recipe().schedule
    rates = {step: learning_rate(schedule, step, 80_000) for step in (0, 59_999, 60_000, 70_000, 75_000, 79_999)}
    expected = {0: 0.1, 59_999: 0.1, 60_000: 0.01, 70_000: 0.001, 75_000: 0.1, 79_999: 0.1}
    assert rates == pytest.approx(expected)


def test_cosine_and_warm_up():
    schedule = Schedule(name="cosine", base_rate=1.0, warmup_steps=10, warmup_start_rate=0.1)
    assert learning_rate(schedule, 50, 100) == pytest.approx(0.5)
    assert learning_rate(schedule, 99, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    warm = [learning_rate(schedule, step, 10_000) for step in range(11)]
    assert warm[:10] == sorted(warm[:10])
    assert warm[0] == pytest.approx(0.1 + 0.9 / 10, abs=1e-4)
    assert warm[9] == pytest.approx(1.0, abs=1e-4)


@given(trial=st.floats(0.0005, 1.0))
def test_one_number_shrinks_a_recipe_and_keeps_its_shape(trial):
    whole, short = recipe(), recipe().shrunk(trial)
    assert short.steps == max(1, round(80_000 * trial))
    assert short.global_batch == whole.global_batch
    for fraction in (0.1, 0.5, 0.8, 0.9):
        if trial > 0.01:
            rates = [learning_rate(r.schedule, int(r.steps * fraction), r.steps) for r in (whole, short)]
            assert rates[0] == pytest.approx(rates[1])
    assert recipe().shrunk(1.0) == whole


@pytest.mark.parametrize(
    ("num_ranks", "synchronised", "micro", "accumulated"),
    [(1, False, 6, 56), (4, False, 6, 14), (56, False, 6, 1), (2, True, 3, 56), (6, True, 1, 56)],
)
def test_accumulation_gives_the_papers_batch_on_any_devices(num_ranks, synchronised, micro, accumulated):
    plan = plan_batches(recipe(), num_ranks, synchronised)
    assert (plan.micro_batch, plan.num_accumulated) == (micro, accumulated)
    assert plan.micro_batch * plan.num_accumulated * plan.num_ranks == 336
    assert "336" in plan.arithmetic()


def test_without_a_batch_norm_batch_a_device_takes_its_share():
    assert plan_batches(recipe(batch_norm_batch=None), 4).micro_batch == 84
    assert plan_batches(recipe(batch_norm_batch=None), 4, synchronised=True).micro_batch == 84


@pytest.mark.parametrize(("num_ranks", "synchronised"), [(5, False), (4, True), (400, False)])
def test_numbers_that_do_not_divide_are_refused(num_ranks, synchronised):
    with pytest.raises(UserError, match="global_batch: 336"):
        plan_batches(recipe(), num_ranks, synchronised)

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.configuration.training import Recipe, Schedule
from pipeline_lib.errors import UserError
from pipeline_lib.training.batch_plan import BatchPlan, plan_batches
from pipeline_lib.training.schedules import learning_rate, rate_arithmetic, scaled


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


def test_rates_per_clips_grow_with_the_batch():
    # R(2+1)D: 0.01 for the 32 clips of a GPU, on 4, 64 and one GPU.
    own = Schedule(base_rate=0.01, warmup_start_rate=0.001, warmup_steps=10, per_clips=32)
    for batch, rate in ((128, 0.04), (2048, 0.64), (32, 0.01), (16, 0.005)):
        large = scaled(own, batch)
        assert large.base_rate == pytest.approx(rate)
        assert large.warmup_start_rate == pytest.approx(rate / 10)
        for step in (0, 5, 9, 50):
            ratio = learning_rate(large, step, 100) / learning_rate(own, step, 100)
            assert ratio == pytest.approx(batch / 32)
    assert rate_arithmetic(own, 2048) == "rate 0.01 per 32 clips × 2048 clips = 0.64"
    as_given = Schedule(base_rate=0.1)
    assert scaled(as_given, 336) is as_given
    assert rate_arithmetic(as_given, 336) == "rate 0.1"


@given(trial=st.floats(0.0005, 1.0))
def test_one_number_shrinks_a_recipe_and_keeps_its_shape(trial):
    whole, short = recipe(), recipe().shrunk(trial)
    assert short.steps == max(1, round(80_000 * trial))
    # Whole groups of batch normalisation, at least two clips, and rates in proportion to the batch.
    assert 2 <= short.global_batch <= max(2, round(336 * trial))
    assert short.global_batch % short.batch_norm_batch == 0
    rates = [scaled(r.schedule, r.global_batch).base_rate for r in (whole, short)]
    assert rates[1] / rates[0] == pytest.approx(short.global_batch / 336)
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


def every_clip(plan: BatchPlan) -> list[int]:
    parts = [part for own in plan.parts for part in own if part.counts]
    return sorted(place for part in parts for place in range(part.first, part.first + part.num_clips))


@given(
    total=st.integers(1, 60),
    size=st.integers(1, 20) | st.none(),
    num_ranks=st.integers(1, 12),
    synchronised=st.booleans(),
)
def test_every_clip_is_counted_once_with_one_weight_on_any_number_of_processes(total, size, num_ranks, synchronised):
    if size is not None and size > total:
        return
    settings = recipe(global_batch=total, batch_norm_batch=size)
    if synchronised and num_ranks > min(total, size or total, (total % size if size else 0) or total):
        with pytest.raises(UserError, match="processes cannot share"):
            plan_batches(settings, num_ranks, synchronised)
        return
    plan = plan_batches(settings, num_ranks, synchronised)
    assert every_clip(plan) == list(range(total))
    assert len(plan.parts) == num_ranks and all(plan.parts)
    assert sum(plan.groups) == total
    # A pass's loss is the mean over its clips; weighted, it counts as its share of the global batch.
    weights = {part: plan.weight(part) / plan.total_weight for own in plan.parts for part in own if part.counts}
    assert all(weight == pytest.approx(part.num_clips / total) for part, weight in weights.items())
    assert sum(weights.values()) == pytest.approx(1.0)
    # Random numbers and groups are those of one process, unless all clips of a device are one group.
    numbers = [part.number for own in plan.parts for part in own if part.counts]
    assert len(set(numbers)) == len(numbers)
    if size is not None:
        alone = plan_batches(settings, 1, synchronised)
        assert plan.groups == alone.groups
        if not synchronised:
            assert {part.number: part for part in weights} == {part.number: part for part in alone.parts[0]}
    assert str(total) in plan.arithmetic()


@pytest.mark.parametrize(
    ("changes", "num_ranks", "passes"),
    [
        ({"global_batch": 128, "batch_norm_batch": 32}, 8, "4 × 1, 4 × 0"),
        ({}, 16, "8 × 4, 8 × 3"),
        ({}, 32, "24 × 2, 8 × 1"),
        ({}, 64, "56 × 1, 8 × 0"),
    ],
)
def test_the_papers_batches_are_said_where_they_do_not_divide(changes, num_ranks, passes):
    plan = plan_batches(recipe(**changes), num_ranks)
    assert f"clips: {passes}; batch normalisation sees {plan.groups[0]} clips" in plan.arithmetic()


def test_only_what_means_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_norm_batch: 512 is more than global_batch, 336"):
        recipe(batch_norm_batch=512)
    with pytest.raises(UserError, match=r"8 processes cannot share .* 6 clips .*Use at most 6 processes"):
        plan_batches(recipe(), 8, synchronised=True)

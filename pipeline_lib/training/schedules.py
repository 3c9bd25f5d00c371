"""Learning rate as a pure function of the step."""

import math

from pipeline_lib.configuration.training import Schedule


def scaled(schedule: Schedule, global_batch: int) -> Schedule:
    """The schedule with the rates of a global batch, if its own are given per so many clips.

    The rule is linear (Goyal et al. 2017, section 2.1). VMZ applies it by the number of GPUs (``base_lr · num_gpus``,
    facebookresearch/VMZ, c2/tools/train_net.py).
    """
    if schedule.per_clips is None:
        return schedule
    names = ("base_rate", "warmup_start_rate")
    rates = {name: getattr(schedule, name) * global_batch / schedule.per_clips for name in names}
    return schedule.model_copy(update={**rates, "per_clips": None})


def rate_arithmetic(schedule: Schedule, global_batch: int) -> str:
    """The largest rate as a line of text."""
    if schedule.per_clips is None:
        return f"rate {schedule.base_rate:g}"
    largest = scaled(schedule, global_batch).base_rate
    return f"rate {schedule.base_rate:g} per {schedule.per_clips} clips × {global_batch} clips = {largest:g}"


def learning_rate(schedule: Schedule, step: int, num_steps: int) -> float:
    """Rate of optimiser step ``step``, counted from 0.

    The step schedule multiplies by ``factor`` at each milestone since the last restart, at which the rate returns to
    ``base_rate`` (I3D's flow stream: google-deepmind/kinetics-i3d, README.md, "Provided checkpoints"). The
    cosine is Loshchilov & Hutter's (SGDR, 2017) without restarts. A warm-up is linear from ``warmup_start_rate`` and
    reaches the schedule's own value at its end (Goyal et al. 2017, section 2.2).

    Args:
        schedule: the recipe's schedule, ``scaled`` to its global batch.
        step: 0 ≤ step < num_steps.
        num_steps: length of the training, for the cosine.
    """
    if schedule.name == "cosine":
        full = 0.5 * schedule.base_rate * (1.0 + math.cos(math.pi * step / num_steps))
    else:
        since = max((restart for restart in schedule.restarts if restart <= step), default=0)
        passed = sum(since < milestone <= step for milestone in schedule.milestones)
        full = schedule.base_rate * schedule.factor**passed
    if step < schedule.warmup_steps:
        return schedule.warmup_start_rate + (full - schedule.warmup_start_rate) * (step + 1) / schedule.warmup_steps
    return full

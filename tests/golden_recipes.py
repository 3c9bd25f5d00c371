"""What the experiments of a paper are, resolved, as text that a person can review and a diff can show."""

from collections.abc import Iterator
from typing import Any

from pipeline_lib.configuration.experiments import Ensemble
from pipeline_lib.planning.plan import Plan
from pipeline_lib.planning.run import Run, with_sources
from pipeline_lib.training.schedules import learning_rate

PAPERS = {"D3D": "d3d", "S3D-G": "s3dg", "R(2+1)D": "r2plus1d", "MoDist": "modist"}


def _values(values: dict[str, Any]) -> str:
    """Keys and values; what is not set is left out."""
    shown = {key: value for key, value in values.items() if value is not None}
    return ", ".join(f"{key} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in shown.items())


def _rates(run: Run) -> str:
    """The rate at the first step, at the end of the warm-up, on both sides of each change, and at the last step."""
    recipe = run.training.recipe
    schedule, steps = recipe.schedule, recipe.steps
    marks = {0, steps - 1}
    if schedule.warmup_steps:
        marks |= {schedule.warmup_steps - 1, schedule.warmup_steps}
    for step in schedule.milestones:
        marks |= {step - 1, step}
    if schedule.name == "cosine":
        marks |= {steps // 2}
    scale = 1.0 if schedule.per_clips is None else recipe.global_batch / schedule.per_clips
    return ", ".join(
        f"{scale * learning_rate(schedule, step, steps):.6g} at {step:,}" for step in sorted(marks) if 0 <= step < steps
    )


def lines(run: Run) -> Iterator[str]:
    """One run, a fact a line."""
    configuration = run.configuration
    entry = run.entry
    if isinstance(entry, Ensemble):
        yield f"members    {', '.join(entry.members)}"
    else:
        training = run.training
        recipe = training.recipe
        optimiser = recipe.optimiser.model_dump(exclude={"beta2"} if recipe.optimiser.name == "sgd" else set())
        yield f"data       {entry.dataset}, {entry.frame_format}, {entry.modality}" + (
            f", {training.motion}" if training.motion else ""
        )
        yield f"network    {run.named_model.name} {run.named_model.options or ''}".rstrip()
        yield f"start      {entry.start}" + ("" if training.start == entry.start else f" = {training.start}")
        if entry.teacher:
            yield f"teacher    {entry.teacher}"
        yield f"objective  {_values(entry.objective.model_dump(mode='json'))}"
        yield f"clip       {_values(recipe.sampling.model_dump(mode='json'))}"
        yield f"optimiser  {_values(optimiser)}"
        yield f"batch      {recipe.global_batch} clips, normalised by {recipe.batch_norm_batch}" + (
            ", synchronised" if recipe.synchronise_batch_norm else ""
        )
        yield f"schedule   {recipe.schedule.name}, {recipe.steps:,} steps: {_rates(run)}"
        yield f"clips      {recipe.steps * recipe.global_batch:,} in all"
        more = recipe.model_dump(
            mode="json",
            include={
                "dropout",
                "precision",
                "reestimate_batch_norm",
                "batch_norm_momentum",
                "ema_decay",
                "final_weights",
            },
        )
        yield f"besides    {_values(more)}"
        if entry.train_share != 1.0:
            yield f"share      {entry.train_share:g} of each class"
        yield f"source     {entry.recipe}: {configuration.recipes[entry.recipe].source}"
    yield f"splits     {entry.splits if not isinstance(entry, Ensemble) else 'of its members'}"
    for name in entry.protocols:
        yield f"protocol   {name}: {_values(configuration.protocols[name].model_dump(mode='json'))}"


def text(plan: Plan, paper: str) -> str:
    """The experiments behind a paper's tables with what they start from or learn from, in the tables' order."""
    tables = {name: table for name, table in plan.configuration.tables.items() if table.paper == paper}
    places: dict[str, list[str]] = {}
    for table in tables.values():
        for name in table.experiments:
            places.setdefault(name, []).append(table.number)
    parts = []
    done: set[str] = set()
    for name in places:
        for run in reversed(with_sources(plan.runs(name)[:1])):
            if run.experiment not in done:
                done.add(run.experiment)
                where = "; ".join(places.get(run.experiment, ["behind others"]))
                parts.append("\n".join([f"{run.experiment} ({where})", *(f"  {line}" for line in lines(run))]))
    return "\n\n".join(parts) + "\n"

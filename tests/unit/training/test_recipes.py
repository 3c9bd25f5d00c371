from pathlib import Path

import pytest
import yaml

from pipeline_lib.configuration.training import Colours, Recipe
from pipeline_lib.training.batch_plan import plan_batches
from pipeline_lib.training.schedules import learning_rate, scaled

RECIPES = Path(__file__).resolve().parents[3] / "workflow" / "recipes"


def load(name: str) -> Recipe:
    return Recipe.model_validate(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()))


def rate(recipe: Recipe, step: int) -> float:
    return learning_rate(scaled(recipe.schedule, recipe.global_batch), step, recipe.steps)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_recipe_runs_on_any_number_of_devices_and_shrinks(name):
    recipe = load(name)
    for num_ranks in (1, 2, 3, 8):
        plan = plan_batches(recipe, num_ranks, recipe.synchronise_batch_norm)
        assert sum(part.num_clips for parts in plan.parts for part in parts if part.counts) == recipe.global_batch
    assert rate(recipe, 0) <= scaled(recipe.schedule, recipe.global_batch).base_rate
    assert rate(recipe, recipe.steps - 1) < rate(recipe, recipe.steps // 4), "it ends at a lower rate"
    assert recipe.shrunk(0.001).steps == max(1, round(recipe.steps * 0.001))
    assert len(recipe.source) > 20


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("mini_kinetics", {0: 0.1, 59_999: 0.1, 60_000: 0.01, 70_000: 0.001, 79_999: 0.001}),
        ("s3dg_finetune", {0: 0.01, 5_999: 0.01, 6_000: 0.001, 7_999: 0.001}),
        ("s3dg", {0: 0.1, 96_999: 0.1, 97_000: 0.01, 108_000: 0.001, 114_999: 0.001}),
        ("i3d_rgb", {0: 0.1, 97_000: 0.01, 108_000: 0.001, 114_999: 0.001}),
        (
            "i3d_flow",
            {0: 0.1, 97_000: 0.01, 104_500: 0.001, 114_999: 0.001, 115_000: 0.1, 139_999: 0.1}
            | {140_000: 0.01, 149_999: 0.01, 150_000: 0.001, 154_999: 0.001},
        ),
        # R(2+1)D: 0.01 of 32 clips is 0.64 of 2,048. An epoch has 488 steps.
        ("r2plus1d", {2_439: 0.32, 4_879: 0.64, 9_759: 0.64, 9_760: 0.064, 14_640: 0.0064, 21_959: 0.00064}),
        ("r2plus1d_finetune", {0: 0.064, 1_951: 0.064, 1_952: 0.0064, 3_904: 0.00064, 7_319: 0.000064}),
        # VMZ multiplies by its 8 GPUs.
        ("r2plus1d_ucf101", {0: 0.0008, 6_249: 0.0008, 6_250: 0.00008, 12_500: 8e-6, 24_999: 8e-7}),
        ("r2plus1d_hmdb51", {0: 0.0016, 2_499: 0.0016, 2_500: 0.00016, 5_000: 1.6e-5, 9_999: 1.6e-6}),
    ],
)
def test_rates_are_the_papers(name, rates):
    recipe = load(name)
    for step, expected in rates.items():
        assert rate(recipe, step) == pytest.approx(expected, rel=1e-4), step


@pytest.mark.parametrize(
    ("name", "devices", "clips"),
    [
        ("mini_kinetics", 56, 6),
        ("something_something", 16, 6),
        ("s3dg", 56, 6),
        ("i3d_rgb", 64, 6),
        ("i3d_flow", 64, 6),
        ("d3d", 64, 6),
        ("d3d_flow_probe", 2, 6),
        ("s3dg_finetune", 8, 6),
        ("d3d_finetune", 10, 6),
        ("r2plus1d", 64, 32),
        ("r2plus1d_finetune", 64, 32),
        ("r2plus1d_long", 64, 32),
        ("r2plus1d_ucf101", 8, 4),
        ("r2plus1d_hmdb51", 8, 4),
        ("modist_full", 8, 8),
        ("slow_r50", 8, 8),
    ],
)
def test_on_the_papers_devices_nothing_is_accumulated(name, devices, clips):
    plan = plan_batches(load(name), devices)
    assert (plan.micro_batch, plan.num_accumulated) == (clips, 1)
    assert all(len(parts) == 1 and parts[0].counts for parts in plan.parts)


def test_lengths_are_the_papers():
    # R(2+1)D, section 4.1: 45 epochs of a million clips; Table 3's hours for the fine-tuning on longer clips.
    epoch = 1_000_000 // 2_048
    assert load("r2plus1d").steps == 45 * epoch and load("r2plus1d_finetune").steps == 15 * epoch
    hours = (20.5 - 11.8) / (59.8 / 45)
    assert load("r2plus1d_long").steps / epoch == pytest.approx(hours, abs=0.1)
    for name, clips in (("ucf101", 100_000), ("hmdb51", 40_000)):
        recipe = load(f"r2plus1d_{name}")
        assert recipe.steps * recipe.global_batch == 8 * clips
    # D3D, sections 5.2 and 5.3: the probes, and one length for student, baseline and teacher.
    probe = load("d3d_flow_probe")
    assert (probe.steps, probe.global_batch) == (100_000, 12)
    assert (load("d3d").steps, load("d3d").global_batch) == (140_000, 384)
    # MaCLR: 10 and 4 epochs, of 20 and 50 rounds over UCF101's 9,537 training videos.
    full, linear = load("modist_full"), load("modist_linear")
    assert full.steps == 200 * (9_537 // 64) and full.schedule.warmup_steps == 34 * (9_537 // 64)
    assert linear.steps == pytest.approx(200 * 9_537 / 256, rel=1e-3)


def test_geometry_and_time_are_the_papers():
    for path in RECIPES.glob("*.yaml"):
        sampling = load(path.stem).sampling
        if path.stem.startswith("r2plus1d"):
            assert (sampling.resize, sampling.short_side, sampling.crop) == ((128, 171), None, 112), path.stem
        elif path.stem.startswith(("s3dg", "d3d", "mini_", "something_")):
            assert (sampling.resize, sampling.short_side, sampling.crop) == ((256, 256), None, 224), path.stem
        elif path.stem == "modist_ssv2":
            assert (sampling.spacing, sampling.num_frames, sampling.flip) == ("segments", 16, False)
        elif path.stem.startswith(("modist", "slow_r50")):
            assert (sampling.frames_per_second, sampling.past_end) == (30.0, "clamp"), path.stem


def test_modists_fine_tuning_has_the_releases_colours_and_precise_statistics():
    full = load("modist_full")
    assert full.sampling.colours == Colours(brightness=0.4, contrast=0.4, saturation=0.4, jitter=0.6, grey=0.5)
    before = Colours(brightness=0.4, contrast=0.4, saturation=0.4, jitter=0.8, grey=0.2, blur=0.5)
    assert load("modist").sampling.colours == load("modist_mini").sampling.colours == before
    assert load("modist_linear").sampling.colours is None
    precise = {path.stem for path in RECIPES.glob("*.yaml") if load(path.stem).reestimate_batch_norm == 200}
    assert precise == {"modist_full", "modist_ssv2", "slow_r50"}
    # Sync-BN over 4 GPUs of 2 clips.
    ssv2 = plan_batches(load("modist_ssv2"), 8, synchronised=True)
    assert (ssv2.groups, ssv2.micro_batch) == ((8, 8), 1)

"""The plan: what each job gets, and that an edit reaches exactly the jobs that it concerns."""

from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.configuration.experiments import Ensemble
from pipeline_lib.configuration.training import LEAST_BATCH, LEAST_SHARED_BATCH
from pipeline_lib.errors import UserError
from pipeline_lib.planning.plan import Plan


def trainings(plan: Plan) -> dict[str, str]:
    """The specification of every training run."""
    return {str(run): run.training.model_dump_json() for run in plan.runs(*plan.trained_names)}


def evaluations(plan: Plan) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, entry in plan.configuration.experiments.items():
        for run in plan.runs(name):
            for protocol in entry.protocols:
                made = run.ensemble if isinstance(entry, Ensemble) else run.evaluation
                found[f"{run}/{protocol}"] = made(protocol).model_dump_json()
    return found


def shards(plan: Plan) -> dict[str, str]:
    """What the stages before the training get."""
    configuration = plan.configuration
    found = {f"manifest {name}": plan.manifest(name).model_dump_json() for name in configuration.datasets}
    for name in configuration.datasets:
        for frames in configuration.frame_formats:
            found[f"frames {name} {frames}"] = plan.frames(name, frames).model_dump_json()
            for motion in configuration.motions:
                found[f"motion {name} {frames} {motion}"] = plan.motion(name, frames, motion).model_dump_json()
    return found


def differing(first: dict[str, str], second: dict[str, str]) -> set[str]:
    assert set(first) == set(second)
    return {key for key, value in first.items() if second[key] != value}


def test_the_specification_of_a_distillation_holds_all_that_shapes_it(planned: Any) -> None:
    specification = planned().run("d3d_demo", 1, 0).training
    assert specification.stage == "distill"
    assert specification.dataset == "generated"
    assert specification.horizontal_flip == "forbidden"
    assert (specification.modality, specification.motion) == ("rgb", "tvl1_small")
    assert specification.motion_kind.bound == 8.0
    assert specification.model.name == "s3dg_slim"
    # The catalogue's options of the name beside the experiment's own.
    assert specification.model.options["gates"] == "branches"
    assert specification.model.options["depth_multiplier"] == 0.25
    assert (specification.objective.endpoint, specification.objective.weight) == ("Mixed_4f", 100.0)
    assert specification.teacher.experiment == "teacher_demo"
    assert specification.teacher.modality == "flow"
    assert specification.recipe.steps == planned().configuration.recipes["demo_rgb"].steps


def test_one_weight_changes_its_own_distillation_alone(planned: Any) -> None:
    before = planned()
    after = planned({"experiments": {"d3d_k400": {"objective": {"weight": 10.0}}}})
    assert differing(trainings(before), trainings(after)) == {"d3d_k400/1-0"}
    # What starts from its weights has them as inputs, and runs again when they change; its own text stays.
    assert after.run("d3d_ucf101", 1, 0).source_weights == [after.run("d3d_k400", 1, 0).weights]
    assert differing(evaluations(before), evaluations(after)) == {"d3d_k400/1-0/all_frames_250"}
    assert differing(shards(before), shards(after)) == set()


def test_a_teachers_recipe_changes_its_students_too(planned: Any) -> None:
    before = planned()
    after = planned({"experiments": {"teacher_demo": {"recipe_changes": {"steps": 30}}}})
    assert differing(trainings(before), trainings(after)) == {"teacher_demo/1-0", "d3d_demo/1-0"}


def test_what_only_people_read_changes_no_job_but_the_report(planned: Any) -> None:
    before = planned()
    after = planned({"experiments": {"d3d_demo": {"description": "Other words"}}})
    assert trainings(before) == trainings(after)
    assert evaluations(before) == evaluations(after)
    assert shards(before) == shards(after)
    assert before.report("demo") != after.report("demo")
    assert before.report("distill_k400") == after.report("distill_k400")


def test_flips_reach_the_trainer_and_no_earlier_stage(planned: Any) -> None:
    before = planned()
    after = planned({"datasets": {"generated": {"horizontal_flip": "allowed"}}})
    assert differing(shards(before), shards(after)) == set()
    changed = differing(trainings(before), trainings(after))
    assert {run.split("/")[0] for run in changed} == {"teacher_demo", "baseline_demo", "d3d_demo"}


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({"motions": {"tvl1_small": {"bound": 16.0}}}, "motion generated short64_native tvl1_small"),
        ({"frame_formats": {"short64_native": {"jpeg_quality": 80}}}, "frames generated short64_native"),
        ({"datasets": {"generated": {"minimum_frames": 9}}}, "manifest generated"),
    ],
)
def test_a_stages_value_changes_that_stage_alone(planned: Any, overlay: dict[str, Any], expected: str) -> None:
    changed = differing(shards(planned()), shards(planned(overlay)))
    assert expected in changed
    kind = expected.split()[0]
    assert {key.split()[0] for key in changed} == {kind}
    assert all(key.split()[-1] == expected.split()[-1] for key in changed)


def test_the_trial_factor_shrinks_every_recipe_in_proportion(planned: Any) -> None:
    full, trial = planned(), planned(changes={"trial": 0.01})
    for name in full.trained_names:
        whole, part = (plan.runs(name)[0].recipe for plan in (full, trial))
        assert part.steps == max(1, round(whole.steps * 0.01))
        assert part.schedule.milestones == [max(1, round(step * 0.01)) for step in whole.schedule.milestones]
        assert LEAST_BATCH <= part.global_batch <= max(LEAST_SHARED_BATCH, round(whole.global_batch * 0.01))
        assert part.batch_norm_batch is None or part.batch_norm_batch <= part.global_batch


def test_flow_is_an_input_only_where_it_is_seen(planned: Any) -> None:
    plan = planned()

    def seen(paths: list[Path]) -> set[str]:
        return {path.relative_to(plan.layout.root).parts[0] for path in paths}

    student, baseline, teacher = (plan.run(name, 1, 0) for name in ("d3d_demo", "baseline_demo", "teacher_demo"))
    assert seen(student.training_shards) == {"frames", "motion"}
    assert seen(student.evaluation_shards) == {"frames"}
    assert seen(baseline.training_shards) == {"frames"}
    assert seen(teacher.evaluation_shards) == {"frames", "motion"}


def test_runs_meet_the_run_that_they_start_from(planned: Any) -> None:
    plan = planned(
        {
            "experiments": {
                "baseline_demo": {"seeds": [3, 4]},
                "rgb_rgb_demo": {"members": ["baseline_demo@3", "baseline_demo@4"]},
                "d3d_demo": {"start": "baseline_demo", "seeds": [0, 4]},
                "d3d_ucf101": {"splits": [1, 2, 3]},
            }
        }
    )
    assert plan.run("d3d_demo", 1, 4).training.start == "baseline_demo/1-4"
    assert plan.run("d3d_demo", 1, 0).training.start == "baseline_demo/1-3"
    # Another data set: its only split, whatever the follower's.
    assert plan.run("d3d_ucf101", 3, 0).training.start == "d3d_k400/1-0"
    with pytest.raises(UserError, match=r"no run d3d_ucf101/4-0"):
        plan.run("d3d_ucf101", 4, 0)


def test_a_source_that_has_seen_the_validation_clips_is_refused(planned: Any) -> None:
    plan = planned({"experiments": {"d3d_k600_ucf101": {"splits": [1, 2], "start": "d3d_ucf101"}}})
    assert plan.run("d3d_k600_ucf101", 1, 0).training.start == "d3d_ucf101/1-0"
    with pytest.raises(UserError, match="has no split 2"):
        plan.run("d3d_k600_ucf101", 2, 0)


def test_an_ensemble_combines_the_runs_that_its_members_share(planned: Any) -> None:
    plan = planned({"experiments": {name: {"splits": [1, 2]} for name in ("d3d_ucf101", "d3d_k600_ucf101")}})
    assert [str(run) for run in plan.runs("d3d_d3d_ucf101")] == ["d3d_d3d_ucf101/1-0", "d3d_d3d_ucf101/2-0"]
    specification = plan.run("d3d_d3d_ucf101", 2, 0).ensemble("all_frames")
    assert specification.members == ["d3d_ucf101/2-0", "d3d_k600_ucf101/2-0"]
    assert planned().run("rgb_rgb_demo", 1, 0).ensemble("two_clips").members == [
        "baseline_demo/1-0",
        "baseline_demo/1-1",
    ]


def test_the_data_sets_behind_a_target_are_those_of_all_that_it_starts_from(planned: Any) -> None:
    assert planned().datasets_behind("finetune_ucf101") == ["ucf101", "kinetics400"]
    assert planned().datasets_behind("demo") == ["generated", "generated_transfer"]


def test_the_intermediates_of_a_target_reach_back_to_the_teachers_shards(planned: Any) -> None:
    plan = planned()
    found = {str(path.relative_to(plan.layout.root)) for path in plan.intermediates("d3d_ucf101")}
    weights = {name for name in found if name.startswith("experiments/")}
    assert weights == {
        f"experiments/{name}/1-0/weights.safetensors" for name in ("d3d_ucf101", "d3d_k400", "teacher_k400")
    }
    folders = {name.rsplit("/", 1)[0] for name in found - weights}
    assert folders == {
        "frames/ucf101/short256_25fps",
        "frames/kinetics400/short256_25fps",
        "motion/kinetics400/short256_25fps/tvl1",
        "imported/torchvision",
    }
    # Nothing is listed here, so that each has the most shards.
    assert len(found) == 3 + 256 + 256 + 256 + 1
    members = {str(path) for path in plan.intermediates("rgb_rgb_demo")}
    assert {str(plan.run("baseline_demo", 1, seed).weights) for seed in (0, 1)} <= members


def test_rewording_a_recipes_source_trains_nothing_again(planned: Any) -> None:
    first, second = planned(), planned()
    recipe = second.configuration.recipes["demo_rgb"]
    second.configuration.recipes["demo_rgb"] = recipe.model_copy(update={"source": "Other words."})
    assert trainings(first) == trainings(second)

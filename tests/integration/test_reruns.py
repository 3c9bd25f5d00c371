"""What runs again after which edit, and what does not: on a finished small demo."""

from small_project import Outcome, Project

FINAL = ("experiments", "evaluations", "frames", "motion")


def made(outcome: Outcome) -> set[str]:
    """Experiments, shards and evaluations that a run makes, by the folders that name them."""
    return {"/".join(path.split("/")[1:-1]) for path in outcome.outputs if path.startswith("output/")}


D3D_AND_FOLLOWERS = {
    "experiments/d3d_demo/1-0",
    "evaluations/d3d_demo/1-0/two_clips",
    "experiments/d3d_demo_transfer/1-0",
    "evaluations/d3d_demo_transfer/1-0/two_clips",
    "report",
}


def test_a_finished_run_has_nothing_to_do(project: Project) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.output.rglob("*.h5")}
    outcome = project.succeed("demo")
    assert "Nothing to be done" in outcome.text
    assert not outcome.jobs
    assert before == {path: path.stat().st_mtime_ns for path in project.output.rglob("*.h5")}


def test_another_weight_reruns_that_distillation_and_what_follows_from_it(project: Project) -> None:
    project.edit("workflow/experiments/demo.yaml", "weight: 100.0", "weight: 50.0")
    outcome = project.plan("demo")
    assert made(outcome) == D3D_AND_FOLLOWERS
    assert outcome.jobs["distill"] == 1
    assert outcome.jobs["finetune"] == 1
    assert not {"train_teacher", "train_baseline", "extract_frames", "extract_motion", "ensemble"} & set(outcome.jobs)


def test_an_ensemble_follows_its_members(project: Project) -> None:
    project.edit(
        "workflow/experiments/demo.yaml", "members: [baseline_demo, teacher_demo]", "members: [d3d_demo, teacher_demo]"
    )
    assert made(project.plan("demo")) == {"evaluations/rgb_flow_demo/1-0/two_clips", "report"}
    project.succeed("demo")
    project.edit("workflow/experiments/demo.yaml", "weight: 100.0", "weight: 50.0")
    assert made(project.plan("demo")) == D3D_AND_FOLLOWERS | {"evaluations/rgb_flow_demo/1-0/two_clips"}


def test_flow_code_reruns_flow_and_what_follows_but_no_frames(project: Project) -> None:
    file = project.folder / "pipeline_lib/flow/quantisation.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    outcome = project.plan("demo")
    jobs = set(outcome.jobs)
    assert outcome.jobs["extract_motion"] == 2
    assert {"train_teacher", "distill", "finetune"} <= jobs
    assert not {"generate_videos", "manifest", "extract_frames", "train_baseline"} & jobs


def test_docstrings_and_comments_rerun_nothing(project: Project) -> None:
    for name in ("flow/quantisation", "training/trainer", "media/frames_stage", "models/inception3d"):
        path = f"pipeline_lib/{name}.py"
        project.edit(path, '"""', '"""Edited: ')
        file = project.folder / path
        file.write_text(file.read_text() + "\n# Another comment.\n")
    outcome = project.plan("demo")
    assert not outcome.jobs, outcome.text


def test_a_description_reruns_only_the_report(project: Project) -> None:
    project.edit("workflow/experiments/demo.yaml", "Temporal stream (TV-L1 flow), the teacher", "The teacher")
    assert made(project.plan("demo")) == {"report"}


def test_a_deleted_shard_is_made_again_with_what_needs_it(project: Project) -> None:
    shard = project.output / "frames/generated/short64_native/000.h5"
    original = shard.read_bytes()
    shard.unlink()
    outcome = project.plan("demo")
    assert outcome.jobs["extract_frames"] == 1
    assert outcome.jobs["extract_motion"] == 1
    assert "manifest" not in outcome.jobs
    project.succeed("output/frames/generated/short64_native/000.h5")
    assert shard.read_bytes() == original


def test_forcerun_does_what_it_says(project: Project) -> None:
    outcome = project.plan("demo", options=("--forcerun", "distill"))
    assert made(outcome) == D3D_AND_FOLLOWERS


def test_one_more_video_redoes_one_shard_per_stage(project: Project) -> None:
    """For real, since within one run Snakemake's triggers differ from those between runs."""
    left_out = (project.folder / "data" / "left_out.csv").read_text()
    train = project.folder / "data" / "train.csv"
    train.write_text(train.read_text() + left_out)
    motion = sorted((project.output / "motion/generated/short64_native/tvl1_small").glob("0*.h5"))
    before = {path: path.stat().st_mtime_ns for path in motion}
    outcome = project.succeed("output/experiments/teacher_demo/1-0/weights.safetensors")
    assert outcome.jobs == {"manifest": 1, "extract_frames": 1, "extract_motion": 1, "train_teacher": 1}
    assert sum(path.stat().st_mtime_ns != before[path] for path in motion) == 1

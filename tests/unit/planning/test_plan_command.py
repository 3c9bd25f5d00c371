"""``plan``: counts against what the configuration and the sidecars say, and days against the limits."""

import json
from pathlib import Path

import pytest
import yaml
from documents import rule_names
from snakemake.cli import get_argument_parser

from pipeline_lib.__main__ import main
from pipeline_lib.models.complexity import count
from pipeline_lib.planning.limits import Limits
from pipeline_lib.planning.plan import load_plan
from pipeline_lib.planning.workload import Speeds, Stage, trainings_behind, workload


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """Lists of 1,300 videos, 1,200 of them for training, and an empty output root."""
    lists = {}
    for name, size in (("train", 1200), ("validation", 100)):
        path = tmp_path / f"{name}.csv"
        rows = "".join(f"a,{index:011d},0,10,{name}\n" for index in range(size))
        path.write_text("label,youtube_id,time_start,time_end,split\n" + rows)
        lists[name] = str(path)
    path = tmp_path / "my.yaml"
    dataset = {"annotations": lists, "videos": [str(tmp_path)], "num_shards": 8}
    path.write_text(yaml.safe_dump({"output": str(tmp_path / "output"), "datasets": {"kinetics400": dataset}}))
    return path


def test_work_follows_from_lists_recipes_and_networks(repository: Path, overlay: Path) -> None:
    plan = load_plan(repository, [overlay])
    stages = workload(plan, "distill_k400", Speeds(gpu_teraflops=100.0, gpu_pairs=1000.0))
    by_stage = {name: [stage for stage in stages if stage.stage == name] for name in ("frames", "motion", "training")}
    (frames,) = by_stage["frames"]
    assert frames.jobs == 8 and frames.cpu_hours == pytest.approx(
        1300 * 250 / (250 / (256 * 256 * 4 / 3 / (340 * 256))) / 3600
    )
    (motion,) = by_stage["motion"]
    assert motion.gpu_hours == pytest.approx(1300 * 250 * (256 * 256 * 4 / 3 / (340 * 256)) / 1000 / 3600)
    runs = trainings_behind(plan.runs(*plan.experiments_of("distill_k400")))
    # Each training once, a teacher before its student.
    names = [run.experiment for run in runs]
    assert len(set(runs)) == len(runs) == len(by_stage["training"])
    assert names.index("teacher_k400") < names.index("d3d_k400")
    specification = runs[names.index("d3d_k400")].training
    forward = [count("s3dg_slim", 64, 224, in_channels=channels).gmacs for channels in (3, 2)]
    clips = specification.recipe.steps * specification.recipe.global_batch
    hours = 2e9 * (3 * forward[0] + forward[1]) * clips / 100e12 / 3600
    (student,) = (stage for stage in by_stage["training"] if stage.what == "d3d_k400/1-0")
    assert student.gpu_hours == pytest.approx(hours) and student.cpu_hours == 0


def test_rates_come_from_finished_shards(repository: Path, overlay: Path, tmp_path: Path) -> None:
    plan = load_plan(repository, [overlay])
    shard = plan.layout.frames("kinetics400", "short256_25fps", "000")
    shard.parent.mkdir(parents=True)
    sidecar = {"figures": {"frames": 5000, "bytes": 100_000_000}, "seconds": 50.0}
    shard.with_name(f"{shard.name}.run.json").write_text(json.dumps(sidecar))
    (frames,) = (stage for stage in workload(plan, "distill_k400", Speeds()) if stage.stage == "frames")
    assert frames.basis == "measured here"
    assert frames.cpu_hours == pytest.approx(1300 * 250 / 100 / 3600)
    assert frames.gigabytes == pytest.approx(1300 * 250 * 20_000 / 1e9)


def test_days_follow_from_the_profiles_limits(repository: Path, tmp_path: Path) -> None:
    stage = Stage("frames", "d/f", jobs=256, cpu_hours=4800.0, rule="extract_frames")
    assert Limits.of_machine(8, 1).days(stage) == pytest.approx(4800 / 8 / 24)
    limits = Limits.of_profile(repository / "profiles/slurm")
    # 100 jobs at a time, 8 cores each.
    assert limits.days(stage) == pytest.approx(4800 / 800 / 24)
    training = Stage("training", "t", jobs=1, cpu_hours=0.0, gpu_hours=1920.0, rule="train_teacher")
    assert limits.days(training) == pytest.approx(1920 / 8 / 24)
    motion = Stage("motion", "m", jobs=256, cpu_hours=0.0, gpu_hours=2400.0, rule="extract_motion")
    assert limits.days(motion) == pytest.approx(2400 / 100 / 24)
    # Four jobs at a time, four cores each; a training has one GPU.
    small = Limits.of_profile(repository / "profiles/small")
    assert small.days(stage) == pytest.approx(4800 / 16 / 24)
    assert small.days(training) == pytest.approx(1920 / 24)


@pytest.mark.parametrize("name", ["slurm", "small"])
def test_a_profile_names_rules_that_exist_and_options_of_snakemake(repository: Path, name: str) -> None:
    folder = repository / "profiles" / name
    profile = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert {*profile["set-threads"], *profile["set-resources"]} <= rule_names()
    options = get_argument_parser([str(folder)]).parse_args([])
    assert options.executor == "slurm"
    assert options.slurm_array_jobs == profile["slurm-array-jobs"]


def test_command_prints_a_table_and_json(
    repository: Path, overlay: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    assert main(["plan", str(overlay), "--profile", "profiles/slurm", "--gpu-teraflops", "100"]) == 0
    text = capsys.readouterr().out
    assert "1,300 videos by the lists' lines" in text and "teacher_k400/1-0" in text and "100 jobs at a time" in text
    assert main(["plan", str(overlay), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["stage"] for row in rows} == {"manifest", "frames", "motion", "training", "evaluation"}
    assert main(["plan", "--target", "distil_k400"]) == 2
    assert "distill_k400" in capsys.readouterr().err
    assert main(["plan", "--target", "distill_k400"]) == 2
    assert "no list to count the videos of" in capsys.readouterr().err

"""What a wrong configuration says: the file, the key, the value, the nearest valid name; and how overlays merge."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.configuration.loading import load
from pipeline_lib.configuration.training import merged
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import resolve
from pipeline_lib.planning.plan import load_plan


def one(experiment: str, **values: Any) -> dict[str, Any]:
    return {"experiments": {experiment: values}}


def demo(**values: Any) -> dict[str, Any]:
    return one("d3d_demo", **values)


# Overlay → the key that the message names, and what else it says.
MISTAKES: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    # unknown keys
    ({"trail": 0.5}, "trail", ("unknown key", "`trial`")),
    ({"frame_formats": {"short64_native": {"short_sid": 64}}}, "short_sid", ("unknown key", "`short_side`")),
    (demo(objective={"wieght": 2.0}), "experiments.d3d_demo.objective.wieght", ("unknown key", "`weight`")),
    (demo(recipe_changes={"stpes": 3}), "experiments.d3d_demo.recipe_changes.stpes", ("unknown key", "`steps`")),
    (
        demo(recipe_changes={"sampling": {"num_frame": 3}}),
        "experiments.d3d_demo.recipe_changes.sampling.num_frame",
        ("unknown key", "`num_frames`"),
    ),
    (
        demo(model={"options": {"depth_multiplierr": 0.5}}),
        "experiments.d3d_demo.model.options.depth_multiplierr",
        ("s3dg_slim", "`depth_multiplier`"),
    ),
    # wrong types and values
    ({"frame_formats": {"short64_native": {"short_side": "64"}}}, "short_side", ("'64'", "integer")),
    ({"trial": 0}, "trial", ("0", "greater than 0")),
    ({"trial": True}, "trial", ("True", "number")),
    ({"hardware": {"device": "gpu"}}, "hardware.device", ("'gpu'", "`cpu`", "auto, cpu, cuda")),
    ({"motions": {"tvl1": {"bound": -1}}}, "motions.tvl1.bound", ("-1", "greater than 0")),
    ({"motions": {"tvl1": {"gap": 0}}}, "motions.tvl1.gap", ("0", "at least 1 or at most −1")),
    (
        {"datasets": {"generated": {"horizontal_flip": "never"}}},
        "horizontal_flip",
        ("'never'", "allowed, by_label, forbidden"),
    ),
    ({"datasets": {"my set": {"format": "folder"}}}, "datasets.my set", ("letters, digits and underscores",)),
    (demo(objective={"name": "distilation"}), "objective.name", ("'distilation'", "`distillation`")),
    (one("baseline_demo", objective={"frozen": True}), "experiments.baseline_demo.objective.name", ("required",)),
    (demo(stage="distil"), "experiments.d3d_demo.stage", ("'distil'", "`distill`")),
    (demo(recipe_changes={"steps": "3"}), "experiments.d3d_demo.recipe_changes.steps", ("'3'", "integer")),
    ({"recipes": {"demo_rgb": {"sampling": {"crop": 100}}}}, "recipes.demo_rgb.sampling", ("100", "short_side")),
    (
        {"recipes": {"demo_rgb": {"schedule": {"name": "cosine"}}}},
        "recipes.demo_rgb.schedule",
        ("milestones", "cosine"),
    ),
    ({"recipes": {"demo_rgb": {"sampling": {"area": [0.3, 2]}}}}, "recipes.demo_rgb.sampling", ("area", "2.0")),
    # names that do not exist
    (demo(teacher="teacher_dmo"), "experiments.d3d_demo.teacher", ("`teacher_dmo`", "`teacher_demo`")),
    (demo(recipe="demo_rbg"), "experiments.d3d_demo.recipe", ("`demo_rbg`", "`demo_rgb`")),
    (demo(dataset="kinetic400"), "experiments.d3d_demo.dataset", ("`kinetic400`", "`kinetics400`")),
    (demo(frame_format="short64"), "experiments.d3d_demo.frame_format", ("`short64`", "`short64_native`")),
    (demo(protocols=["two_clip"]), "experiments.d3d_demo.protocols", ("`two_clip`", "`two_clips`")),
    (demo(model={"name": "s3dg_slm"}), "experiments.d3d_demo.model.name", ("network `s3dg_slm`", "`s3dg_slim`")),
    ({"experiments": {"teacher_demo": {"motion": "tvl1_smal"}}}, "motion", ("`tvl1_smal`", "`tvl1_small`")),
    ({"select": ["dmo"]}, "select", ("`dmo`", "`demo`")),
    (
        {"targets": {"distill_k400": {"experiments": ["d3d_k40"]}}},
        "targets.distill_k400.experiments",
        ("`d3d_k40`", "`d3d_k400`"),
    ),
    (
        {"experiments": {"rgb_rgb_demo": {"members": ["baseline_demo@0", "baselin_demo@1"]}}},
        "experiments.rgb_rgb_demo.members",
        ("`baselin_demo`", "`baseline_demo`"),
    ),
    # what does not fit together
    ({"experiments": {"rgb_rgb_demo": {"members": ["baseline_demo@0", "baseline_demo@7"]}}}, "members", ("[0, 1]",)),
    ({"experiments": {"d3d_ucf101": {"splits": [1, 4]}}}, "experiments.d3d_ucf101.splits", ("4", "ucf101 has 3")),
    (demo(teacher=None), "experiments.d3d_demo.teacher", ("needs a teacher",)),
    (demo(motion="tvl1"), "experiments.d3d_demo.motion", ("`tvl1`", "`tvl1_small`")),
    ({"experiments": {"teacher_demo": {"motion": None}}}, "experiments.teacher_demo.motion", ("modality: flow",)),
    # motion methods and their parameters
    ({"motions": {"tvl1": {"method": "tvl"}}}, "motions.tvl1.method", ("'tvl'", "`tvl1`", "frame_difference")),
    ({"motions": {"tvl1": {"parameters": {"lamda": 0.1}}}}, "motions.tvl1.parameters.lamda", ("`lambda`",)),
    ({"motions": {"tvl1": {"parameters": {"iterations": "30"}}}}, "motions.tvl1.parameters.iterations", ("integer",)),
    ({"motions": {"tvl1": {"parameters": {"tau": 0}}}}, "motions.tvl1.parameters.tau", ("0", "greater than 0")),
    (
        {"motions": {"flow_edges": {"parameters": {"source": "rat"}}}},
        "motions.flow_edges.parameters.source",
        ("`raft`",),
    ),
    (
        {"motions": {"flow_edges": {"parameters": {"source_parameters": {"itrations": 3}}}}},
        "motions.flow_edges.parameters.source_parameters",
        ("`iterations`",),
    ),
    (one("teacher_demo", motion="flow_edges"), "experiments.teacher_demo.motion", ("flow_edges", "not flow")),
    (
        one("baseline_demo", objective={"name": "flow_regression"}, motion="frame_difference"),
        "experiments.baseline_demo.motion",
        ("frame_difference", "`flow_regression`"),
    ),
    # networks, their clips and their starts
    (
        demo(model={"options": {"depth_multiplier": "wide"}}),
        "experiments.d3d_demo.model.options.depth_multiplier",
        ("s3dg_slim", "'wide'", "number"),
    ),
    (
        demo(model={"options": {"convolution": "seperable"}}),
        "experiments.d3d_demo.model.options.convolution",
        ("`separable`",),
    ),
    (
        one("modist_demo", objective={"motion_network": {"options": {"widht": 8}}}),
        "experiments.modist_demo.objective.motion_network.options.widht",
        ("modist_motion_r50_stacked", "`width`"),
    ),
    (
        one("modist_demo", objective={"motion_frames": 4, "motion_network": {"options": {"num_frames": 8}}}),
        "experiments.modist_demo.objective.motion_network.options.num_frames",
        ("8 frames", "have 4"),
    ),
    (
        one(
            "r2d_18_8f_k400",
            model={"options": {"num_frames": 8}},
            recipe_changes={"sampling": {"num_frames": 16}},
        ),
        "experiments.r2d_18_8f_k400.model.options.num_frames",
        ("8 frames", "have 16"),
    ),
    (one("r2d_18_8f_k400", protocols=["all_frames"]), "experiments.r2d_18_8f_k400.protocols", ("`all_frames`", "8")),
    (
        one("mvit_v2_s_k400", protocols=["small"]) | {"protocols": {"small": {"crop": 112}}},
        "experiments.mvit_v2_s_k400.protocols",
        ("`small`", "112 pixels", "224 only"),
    ),
    (
        {
            "experiments": {
                "d3d_demo": {"teacher": "flow_mvit"},
                "flow_mvit": {
                    "description": "A teacher for 16 frames of 224 pixels",
                    "stage": "train_teacher",
                    "dataset": "generated",
                    "frame_format": "short64_native",
                    "modality": "flow",
                    "motion": "tvl1_small",
                    "model": {"name": "torchvision/mvit_v2_s"},
                    "recipe": "transformer",
                },
            }
        },
        "experiments.d3d_demo.teacher",
        ("flow_mvit", "56 pixels", "another size"),
    ),
    (
        one("d3d_demo", objective={"endpoint": "logits", "teacher_endpoint": "Mixed_4f"}),
        "experiments.d3d_demo.objective",
        ("features from features",),
    ),
    (
        one("d3d_demo_transfer", model={"options": {"depth_multiplier": 0.5}}, start="d3d_demo"),
        "experiments.d3d_demo_transfer.start",
        ("depth_multiplier is 0.25 there and 0.5 here",),
    ),
    (
        one("d3d_demo_transfer", model={"options": {"norm_scale": True}}, start="d3d_demo"),
        "experiments.d3d_demo_transfer.start",
        ("norm_scale is False there and True here",),
    ),
    (
        one("d3d_demo_transfer", model={"options": {"gate_bias": True}}, start="d3d_demo"),
        "experiments.d3d_demo_transfer.start",
        ("gate_bias is False there and True here",),
    ),
    (
        one("d3d_demo_transfer", model={"name": "r3d_18", "options": None}),
        "experiments.d3d_demo_transfer.model.options",
        ("valid",),
    ),
    (
        one("d3d_demo_transfer", start="modist_demo"),
        "experiments.d3d_demo_transfer.start",
        ("modist_r18 is of another family than s3dg_slim",),
    ),
    (
        one("d3d_demo_transfer", start="teacher_demo"),
        "experiments.d3d_demo_transfer.start",
        ("it sees flow, not rgb",),
    ),
    # what an objective asks of the rest
    (one("modist_demo", motion=None), "experiments.modist_demo.motion", ("`modist`", "motion kind")),
    (
        {
            "experiments": {
                "modist_demo": {"modality": "flow"},
                "modist_demo_linear": {"modality": "flow", "motion": "tvl1_small"},
            }
        },
        "experiments.modist_demo.modality",
        ("`modist`", "sees rgb"),
    ),
    (one("modist_demo", protocols=["one_clip"]), "experiments.modist_demo.protocols", ("no classifier", "[]")),
    (one("modist_demo", objective={"losses": ["motion"]}), "experiments.modist_demo.objective", ("losses", "cross")),
    (
        one("modist_demo", objective={"motion_network": {"name": "modist_motion_r5"}}),
        "experiments.modist_demo.objective.motion_network.name",
        ("`modist_motion_r5`", "`modist_motion_r50`"),
    ),
    (
        one("modist_demo", recipe_changes={"synchronise_batch_norm": False}),
        "experiments.modist_demo.recipe_changes.synchronise_batch_norm",
        ("`modist` needs true",),
    ),
    (
        one("modist_demo", recipe_changes={"validation_steps": 5}),
        "experiments.modist_demo.recipe_changes.validation_steps",
        ("no classifier", "set 0"),
    ),
    (
        one(
            "baseline_demo",
            objective={"name": "classification", "frozen": True},
            recipe_changes={"reestimate_batch_norm": 5},
        ),
        "experiments.baseline_demo.recipe_changes.reestimate_batch_norm",
        ("frozen", "set 0"),
    ),
    (
        one("baseline_demo", objective={"name": "classification", "standardised": True}),
        "experiments.baseline_demo.objective",
        ("standardised", "frozen"),
    ),
    (one("baseline_demo", teacher="teacher_demo"), "experiments.baseline_demo.teacher", ("uses no teacher",)),
    (
        one("baseline_demo", objective={"name": "flow_regression"}),
        "experiments.baseline_demo.motion",
        ("`flow_regression`", "motion kind"),
    ),
    (
        one("baseline_demo", objective={"name": "flow_regression", "endpoint": "logits"}),
        "experiments.baseline_demo.objective",
        ("endpoint", "spatial grid"),
    ),
]


@pytest.mark.parametrize(("overlay", "key", "said"), MISTAKES, ids=[key for _, key, _ in MISTAKES])
def test_a_mistake_is_one_line_with_file_key_and_remedy(
    planned: Any, overlay: dict[str, Any], key: str, said: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as problem:
        planned(overlay)
    text = str(problem.value)
    assert re.match(r"\S*my\.yaml: ", text), text
    assert f"{key}: " in text
    for part in said:
        assert part in text
    assert "\n" not in text


def test_the_file_that_gave_a_value_is_named_not_the_overlay(repository: Path, tmp_path: Path) -> None:
    shutil.copy2(repository / "config.yaml", tmp_path)
    shutil.copytree(repository / "workflow", tmp_path / "workflow")
    path = tmp_path / "workflow" / "experiments" / "demo.yaml"
    path.write_text(path.read_text().replace("teacher: teacher_demo", "teacher: teacher_dmeo"))
    with pytest.raises(UserError, match=r"demo\.yaml: experiments\.d3d_demo\.teacher: .*`teacher_dmeo`"):
        load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("start", "ring"),
    [
        ("d3d_demo_transfer", "d3d_demo → teacher_demo → d3d_demo_transfer → d3d_demo"),
        ("teacher_demo", "teacher_demo → teacher_demo"),
    ],
)
def test_a_ring_of_experiments_is_shown(planned: Any, start: str, ring: str) -> None:
    with pytest.raises(UserError, match=f"in a ring: {ring}"):
        planned({"experiments": {"teacher_demo": {"start": start}}})


def test_all_problems_are_said_at_once(planned: Any) -> None:
    with pytest.raises(UserError, match="has 2 problems") as problem:
        planned({"trail": 1, "hardware": {"num_threads": 0}})
    assert "trail" in str(problem.value)
    assert "hardware.num_threads: the value 0" in str(problem.value)


def test_a_new_experiment_is_told_what_it_lacks(planned: Any) -> None:
    with pytest.raises(UserError) as problem:
        planned({"experiments": {"mine": {"stage": "distill"}}})
    for key in ("description", "dataset", "frame_format", "model", "recipe"):
        assert f"experiments.mine.{key}: this key is required, and missing." in str(problem.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trial: [", r"my\.yaml:\d+: this is not valid YAML"),
        ("trial: 1\ntrial: 0.5\n", r"my\.yaml:2: .*the key 'trial' occurs twice"),
        ("- trial\n", r"my\.yaml: a mapping of keys to values is expected"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(repository: Path, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        load_plan(repository, [path])


def test_a_missing_file_and_a_second_definition_are_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml: there is no such configuration file"):
        load_plan(repository, [tmp_path / "gone.yaml"])
    shutil.copy2(repository / "config.yaml", tmp_path)
    shutil.copytree(repository / "workflow", tmp_path / "workflow")
    (tmp_path / "workflow" / "experiments" / "zz.yaml").write_text("d3d_demo: {description: again}\n")
    with pytest.raises(UserError, match=r"zz\.yaml: experiments\.d3d_demo exists already, in .*demo\.yaml"):
        load(tmp_path / "config.yaml")


def test_overlays_merge_key_by_key_and_replace_lists_the_later_over_the_earlier(
    repository: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("datasets: {kinetics400: {videos: [/a, /b], num_shards: 8}}\ntrial: 0.5\n")
    second.write_text("datasets: {kinetics400: {videos: [/c]}}\n")
    configuration = load_plan(repository, [first, second], {"trial": 0.25}).configuration
    kinetics = configuration.datasets["kinetics400"]
    assert kinetics.videos == ["/c"]
    assert kinetics.num_shards == 8
    assert kinetics.format == "kinetics"  # config.yaml's
    assert "hmdb51" in configuration.datasets
    assert configuration.trial == 0.25


def test_a_value_of_the_command_line_is_named_as_such(planned: Any) -> None:
    with pytest.raises(UserError, match=r"--config: trial: the value 3 "):
        planned(changes={"trial": 3})


def test_a_network_and_its_start_may_differ_in_what_has_no_weights(planned: Any) -> None:
    options = {"depth_multiplier": 0.25, "dropout": 0.5, "batch_norm_momentum": 0.1, "padding": "symmetric"}
    plan = planned(one("d3d_demo_transfer", model={"options": options}))
    specification = plan.runs("d3d_demo_transfer")[0].training
    # A specification holds every option of the family.
    assert specification.model.options == resolve("s3dg_slim")[1] | options
    assert specification.model.options["minimum_depth"] == 16


def test_the_stream_inside_a_network_is_a_start_for_it(planned: Any) -> None:
    options = {"depth_multiplier": 0.25}
    own = {"name": "s3dg_predicted_flow", "options": options}
    planned(one("baseline_demo", model=own, start="teacher_demo"))
    with pytest.raises(UserError, match="teacher_demo` do not fit: stem_kernel is 3 there and 7 here"):
        wide = {"name": "s3dg_predicted_flow", "options": options | {"stem_kernel": 7}}
        planned(one("baseline_demo", model=wide, start="teacher_demo"))
    with pytest.raises(UserError, match="it sees rgb, not flow"):
        planned(one("d3d_demo", model=own, start="baseline_demo"))


plain = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda values: st.dictionaries(st.sampled_from("abc"), values, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(plain, plain)
def test_merging_keeps_what_the_change_does_not_name(base: Any, changes: Any) -> None:
    result = merged(base, changes)
    assert merged(result, changes) == result
    if isinstance(base, dict) and isinstance(changes, dict):
        assert set(result) == set(base) | set(changes)
        assert all(result[key] == base[key] for key in set(base) - set(changes))
    else:
        assert result == changes


def test_snakemake_prints_the_message_alone(repository: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "my.yaml"
    overlay.write_text("trail: 0.5\n")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "demo", "--configfile", str(overlay)]
    outcome = subprocess.run(
        [*command, "--snakefile", str(repository / "Snakefile"), "--directory", str(repository)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode != 0
    text = outcome.stdout + outcome.stderr
    assert "my.yaml: trail: unknown key. Did you mean `trial`?" in text
    assert "Traceback" not in text


def test_what_the_user_did_not_touch_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    overlay = tmp_path / "my.yaml"
    small = {"model": {"options": {"depth_multiplier": 0.125}}}
    overlay.write_text(yaml.safe_dump({"experiments": {"baseline_k400": small}, "start": "random"}))
    plan = load_plan(Path(__file__).resolve().parents[3], [overlay])
    assert plan.datasets_behind("baseline_k400") == ["kinetics400"]
    with pytest.raises(UserError, match=r"baseline_flow_probe_pwc_k400\.start: .*depth_multiplier is 0\.125"):
        plan.datasets_behind("baseline_flow_probe_pwc_k400")

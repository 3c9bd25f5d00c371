"""What a user's experiment differs in from the paper's is found key by key, and inherited."""

from typing import Any

import pytest

from pipeline_lib.planning.fidelity import as_published, differences


def found(plan: Any, published: Any, name: str) -> list[str]:
    return differences(plan.runs(name)[0], as_published(published.configuration))


def test_an_experiment_as_it_is_brought_differs_in_nothing(planned: Any) -> None:
    plan = planned()
    for name in {one for table in plan.configuration.tables.values() for one in table.experiments}:
        assert found(plan, plan, name) == []


@pytest.mark.parametrize(
    ("overlay", "name", "expected"),
    [
        ({"trial": 0.01}, "d3d_ucf101", ["a trial of 0.01 of the recipe's steps and batch"]),
        ({"start": "random"}, "baseline_k400", ["random first weights, the paper starts from ImageNet's"]),
        ({"recipes": {"d3d": {"sampling": {"crop": 112}}}}, "baseline_k400", ["sampling.crop 112 instead of 224"]),
        ({"recipes": {"d3d": {"global_batch": 48}}}, "teacher_k400", ["global_batch 48 instead of 384"]),
        (
            {"protocols": {"all_frames_250": {"crop": 112}}},
            "baseline_k400",
            ["protocols.all_frames_250.crop 112 instead of None"],
        ),
        (
            {"datasets": {"kinetics400": {"filter": {"total": {"train": 100}}}}},
            "baseline_k400",
            ["datasets.kinetics400.filter.total.train 100 instead of None"],
        ),
    ],
)  # fmt: skip
def test_each_kind_of_change_is_named(planned: Any, overlay: dict[str, Any], name: str, expected: list[str]) -> None:
    for text in expected:
        assert text in found(planned(overlay), planned(), name)


def test_where_the_data_lie_makes_no_difference(planned: Any) -> None:
    overlay = {
        "output": "elsewhere",
        "hardware": {"device": "cpu"},
        "datasets": {
            "kinetics400": {"videos": ["a"], "annotations": {"train": "b", "validation": "c"}, "num_shards": 2}
        },
        "recipes": {"d3d": {"log_steps": 1, "checkpoint_steps": 7, "source": "me"}},
    }
    assert found(planned(overlay), planned(), "d3d_k400") == []


def test_differences_are_inherited_from_starts_teachers_and_members(planned: Any) -> None:
    overlay = {"experiments": {"teacher_k400": {"recipe_changes": {"steps": 2}}}}
    plan = planned(overlay)
    text = "steps 2 instead of 140,000 (in teacher_k400)"
    assert found(plan, planned(), "teacher_k400") == ["steps 2 instead of 140,000"]
    for name in ("d3d_k400", "d3d_ucf101", "two_stream_k400", "d3d_d3d_ucf101"):
        assert found(plan, planned(), name) == [text], name
    assert found(plan, planned(), "baseline_k400") == []
    # What all have in common is said once.
    random = planned({"start": "random"})
    (inherited,) = found(random, planned(), "d3d_d3d_ucf101")
    assert inherited.startswith("random first weights, the paper starts from ImageNet's (in ")
    assert {"d3d_k400", "d3d_k600", "teacher_k400", "teacher_k600"} == set(
        inherited[:-1].partition("(in ")[2].split(", ")
    )


def test_many_differing_keys_are_counted(planned: Any) -> None:
    changes = {
        "crop": 32,
        "num_frames": 8,
        "stride": 2,
        "resize": [40, 40],
        "augmentation": "none",
        "past_end": "clamp",
    }
    plan = planned({"recipes": {"d3d": {"sampling": changes, "global_batch": 6, "steps": 4}}})
    texts = found(plan, planned(), "baseline_k400")
    assert len(texts) == 7
    assert texts[-1].endswith("more keys")


def test_an_experiment_of_the_users_own_has_no_paper(planned: Any) -> None:
    own = {"description": "own", "stage": "train_baseline", "dataset": "kinetics400", "frame_format": "short256_25fps"}
    plan = planned({"experiments": {"mine": own | {"model": {"name": "i3d"}, "recipe": "d3d"}}})
    assert found(plan, planned(), "mine") == []

"""Small artefacts that a report is made from."""

import pytest
from report_tree import PROTOCOL
from small_tree import make_run, make_tree, training_specification

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.specification import (
    EnsembleSpecification,
    EvaluationSpecification,
)
from pipeline_lib.evaluation.ensemble import evaluate_ensemble
from pipeline_lib.evaluation.runner import evaluate


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = make_tree(tmp_path_factory.mktemp("report") / "output", num_videos=16, motion=True)
    teacher = training_specification("teacher", "flow", stage="train_teacher")
    runs = [
        teacher,
        training_specification("baseline"),
        training_specification("baseline", seed=1),
        training_specification("d3d", stage="distill", teacher=teacher),
    ]
    for training in runs:
        make_run(layout, training)
        place = layout.evaluation(training.experiment, "1", str(training.seed), "two_clips")
        specification = EvaluationSpecification(training=training, protocol_name="two_clips", protocol=PROTOCOL)
        evaluate(specification, layout.root, place, 1)
    ensemble = EnsembleSpecification(
        experiment="rgb_flow",
        split=1,
        seed=0,
        members=["baseline/1-0", "teacher/1-0"],
        protocol_name="two_clips",
        protocol=PROTOCOL,
    )
    evaluate_ensemble(ensemble, layout.root, layout.evaluation("rgb_flow", "1", "0", "two_clips"))
    return layout

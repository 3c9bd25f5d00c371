"""What decides an evaluation, as its record has it: for the stage, and to compare a record with the plan."""

from typing import Any

from pipeline_lib.configuration.specification import EvaluationSpecification


def judged_parameters(specification: EvaluationSpecification) -> dict[str, Any]:
    """The parameters of a record that follow from the specification; what the weights hold is one of its inputs."""
    training = specification.training
    return {
        "task": specification.task,
        "experiment": training.experiment,
        "split": training.split,
        "seed": training.seed,
        "dataset": training.dataset,
        "frame_format": training.frame_format,
        "modality": training.modality,
        "protocol": specification.protocol.model_dump(mode="json"),
        "sampling": training.recipe.sampling.model_dump(mode="json"),
    }

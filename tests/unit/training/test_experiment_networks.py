"""Every experiment's network takes the clips of its recipe, and has the endpoints that its objective names."""

from pathlib import Path

import pytest
import torch
import yaml

from pipeline_lib.clips.batches import CHANNELS
from pipeline_lib.configuration.experiments import Experiment
from pipeline_lib.configuration.training import Recipe
from pipeline_lib.training.networks import build_network, build_pathway

WORKFLOW = Path(__file__).resolve().parents[3] / "workflow"
EXPERIMENTS = {
    name: Experiment.model_validate(values)
    for path in sorted((WORKFLOW / "experiments").glob("*.yaml"))
    for name, values in yaml.safe_load(path.read_text()).items()
    if not name.startswith("_") and "members" not in values
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_network_takes_the_recipes_clips(name):
    experiment = EXPERIMENTS[name]
    recipe = Recipe.model_validate(yaml.safe_load((WORKFLOW / "recipes" / f"{experiment.recipe}.yaml").read_text()))
    changed = experiment.recipe_changes.get("sampling", {})
    num_frames = changed.get("num_frames", recipe.sampling.num_frames)
    with torch.device("meta"):
        network = build_network(experiment.model, 7, experiment.modality).eval()
        clip = torch.empty(1, CHANNELS[experiment.modality], num_frames, recipe.sampling.crop, recipe.sampling.crop)
    objective = experiment.objective
    names = (objective.endpoint,) if hasattr(objective, "endpoint") else ()
    with torch.no_grad():
        outputs = network.forward_endpoints(clip, names)
        for pathway_model in objective.networks.values():
            with torch.device("meta"):
                pathway = build_pathway(pathway_model, 1).eval()
                motion = torch.empty(1, 1, objective.motion_frames, recipe.sampling.crop, recipe.sampling.crop)
            assert pathway(motion).shape == (1, 1)
    assert outputs["logits"].shape == (1, 7)
    assert set(names) <= set(outputs)


TAUGHT = [name for name, experiment in EXPERIMENTS.items() if experiment.teacher is not None]


@pytest.mark.parametrize("name", TAUGHT)
def test_the_teacher_has_the_endpoint(name):
    experiment = EXPERIMENTS[name]
    teacher = EXPERIMENTS[experiment.teacher]
    with torch.device("meta"):
        network = build_network(teacher.model, 7, teacher.modality)
    assert experiment.objective.taught_endpoint in network.endpoints

"""Pre-training without labels through Snakemake: strengths, two pathways, linear classifiers, retrieval."""

import json
from pathlib import Path

from small_project import copy_sources

SMALL = """
datasets:
  generated_long:
    generated: {family: motions, num_train: 12, num_validation: 8, num_frames: 18, short_side: 48, seed: 3}
    num_shards: 1
frame_formats:
  short64_native: {short_side: 48, jpeg_quality: 90}
recipes:
  demo_modist:
    schedule: {warmup_steps: 1}
    steps: 4
    global_batch: 4
    reestimate_batch_norm: 2
    sampling: {crop: 32, short_side: [40, 48]}
  demo_linear: {steps: 4, global_batch: 4, sampling: {crop: 32, short_side: [40, 40]}}
experiments:
  modist_demo: {model: {options: {width: 8}}, objective: {motion_network: {options: {width: 8}}}}
  rgb_only_demo: {model: {options: {width: 8}}}
  modist_demo_linear: {model: {options: {width: 8}}}
  rgb_only_demo_linear: {model: {options: {width: 8}}}
  random_demo_linear: {model: {options: {width: 8}}}
"""


def test_the_demo_of_pretraining_runs_and_knows_what_an_edit_concerns(repository: Path, tmp_path: Path) -> None:
    project = copy_sources(repository, tmp_path / "project")
    (project.folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    jobs = project.succeed("demo_modist").jobs
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate_run"], jobs["retrieve"]) == (2, 3, 3, 3)
    assert (jobs["motion_strength"], jobs["extract_motion"]) == (1, 1)
    page = (project.output / "report/demo_modist.html").read_text(encoding="utf-8")
    for name in ("modist", "rgb_only", "random"):
        folder = project.output / f"evaluations/{name}_demo_linear/1-0/two_clips"
        figures = json.loads((folder / "retrieval.json").read_text())["metrics"]
        assert set(figures) == {"recall_at_1", "recall_at_5", "recall_at_10", "knn_top1"}
        assert f"{name}_demo_linear" in page
    assert "Nearest neighbours" in page and "k-NN" in page

    # An experiment is a target of its own name; what it needs is there.
    project.succeed("random_demo_linear")
    # γ is the training's affair: the table of strengths knows nothing of it.
    project.edit("workflow/experiments/modist.yaml", "    bank_size:", "    threshold: 0.1\n    bank_size:")
    planned = project.plan("demo_modist").jobs
    assert (planned["pretrain"], planned["finetune"], planned["retrieve"]) == (1, 1, 1)
    assert not {"motion_strength", "extract_motion", "extract_frames", "generate_videos"} & set(planned)

"""docs/experiments.md: the tables in it are those of workflow/tables, and the experiments that it names exist."""

import re
from pathlib import Path
from typing import Any

from pipeline_lib.planning.paper_tables import with_tables


def document(repository: Path) -> str:
    return (repository / "docs" / "experiments.md").read_text(encoding="utf-8")


def test_the_tables_in_the_document_are_up_to_date(repository: Path, planned: Any) -> None:
    text = document(repository)
    assert with_tables(text, planned()) == text, "run: python -m pipeline_lib tables --write"


def test_every_experiment_that_the_document_names_exists(repository: Path, planned: Any) -> None:
    names = set(re.findall(r"`([a-z]\w+_(?:k400|k600|ucf101|hmdb51|demo|mini|splits))`", document(repository)))
    assert len(names) > 100
    configuration = planned().configuration
    assert names <= {*configuration.experiments, *configuration.targets, *configuration.tables}


def test_every_variant_of_d3d_exists_on_the_other_two_data_sets(planned: Any) -> None:
    configuration = planned().configuration
    tables = [table for table in configuration.tables.values() if table.paper == "D3D"]
    in_tables = {name for table in tables for name in table.experiments if name.endswith("_k400")}
    further = {
        *("d3d_literal_k400", "d3d_kl_k400", "mars_k400", "d3d_cosine_k400", "d3d_adamw_k400", "baseline_adamw_k400"),
        *("nl_s3dg_k400", "s3dg_predicted_flow_simple_k400", "s3dg_flow_loss_simple_k400"),
        *(f"{kind}_flow_probe_{decoder}_k400" for kind in ("baseline", "d3d") for decoder in ("simple", "pwc")),
    }
    variants = {name.removesuffix("_k400") for name in in_tables | further}
    assert len(variants) > 25
    wanted = {f"{name}_{place}" for name in variants for place in ("k600", "mini")}
    # Figure 4 of S3D-G names I3D's spatial stream there.
    assert wanted - {"i3d_rgb_mini"} | {"i3d_mini"} <= set(configuration.experiments)


def test_one_switch_changes_the_start_of_every_network_of_the_inception_family(planned: Any) -> None:
    plan = planned({"start": "imported/inception_v1"})
    (run,) = plan.runs("d3d_k400")
    assert run.training.start == "imported/inception_v1"
    assert run.training.teacher.start == "imported/inception_v1"
    assert [path.name for path in run.source_weights] == ["weights.safetensors", "inception_v1.safetensors"]
    by_default = planned()
    for name in ("d3d_k400", "baseline_k600", "i3d_something", "top_heavy_s3d_k3_mini", "teacher_mini", "nl_s3dg_k400"):
        assert by_default.runs(name)[0].training.start == "imported/torchvision/googlenet", name
        assert by_default.runs(name)[0].training.model.options["norm_scale"] is True
        assert planned({"start": "random"}).runs(name)[0].training.start == "random"
    # What starts from a network has the options of that network's start.
    assert by_default.runs("d3d_ucf101")[0].training.model.options["norm_scale"] is True
    assert planned({"start": "random"}).runs("d3d_ucf101")[0].training.model.options["norm_scale"] is None
    for name in ("d3d_demo", "r2plus1d_18_8f_k400", "modist_k400", "scratch_ucf101_full"):
        assert by_default.runs(name)[0].training.start == "random", name

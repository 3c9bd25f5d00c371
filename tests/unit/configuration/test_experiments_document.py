"""docs/experiments.md knows every experiment with a number of a paper, and the number."""

import re
from pathlib import Path
from typing import Any


def document(repository: Path) -> str:
    return (repository / "docs" / "experiments.md").read_text(encoding="utf-8")


def test_every_number_of_a_paper_is_in_the_document(repository: Path, planned: Any) -> None:
    text = document(repository)
    numbers = 0
    for name, entry in planned().configuration.experiments.items():
        if "video_top1" not in entry.paper:
            continue
        table = re.fullmatch(r"(\w+)_18_(8|16)f_k400", name)
        if table:
            (row,) = re.findall(rf"^\| `{table[1]}` \| (.*) \| (.*) \|$", text, re.MULTILINE)
            expected = f"{entry.paper['clip_top1']} / {entry.paper['video_top1']}"
            assert row[table[2] == "16"] == expected, name
        else:
            short = name if f"`{name}`" in text else "…" + name[len("r2plus1d_18") : -len("k400")] + "…"
            place = text.index(f"`{short}`")
            assert str(entry.paper["video_top1"]) in text[place : place + 250], name
        numbers += 1
    assert numbers > 85


def test_every_experiment_that_the_document_names_exists(repository: Path, planned: Any) -> None:
    names = set(re.findall(r"`([a-z]\w+_(?:k400|k600|ucf101|hmdb51|demo))`", document(repository)))
    assert len(names) > 25
    configuration = planned().configuration
    assert names <= {*configuration.experiments, *configuration.targets}


def test_every_variant_of_d3d_exists_on_the_other_two_data_sets(repository: Path, planned: Any) -> None:
    section = document(repository).split("## D3D (")[1].split("All of these exist on Kinetics-600")[0]
    written = set(re.findall(r"`([a-z]\w+)_k400`", section))
    patterns = re.findall(r"`([a-z]\w+_)\*`", section)
    configuration = planned().configuration
    names = {name for name in configuration.experiments if name.endswith("_k400")}
    variants = written | {name[: -len("_k400")] for name in names if name.startswith(tuple(patterns))}
    assert len(variants) > 25
    wanted = {f"{name}_{place}" for name in variants for place in ("k600", "mini")}
    # Figure 4 of S3D-G names I3D's spatial stream there.
    assert wanted - {"i3d_rgb_mini"} | {"i3d_mini"} <= set(configuration.experiments)


def test_the_switch_of_the_document_starts_all_from_one_file(repository: Path, planned: Any) -> None:
    section = document(repository).split("## What our networks")[1]
    chosen = re.findall(r"--config start=(\S+)", section)
    assert chosen == ["random", "imported/slim/inception_v1"]
    imagenet = {"experiments": {name: {"start": "imagenet"} for name in ("teacher_k400", "d3d_k400", "i3d_rgb_k400")}}
    for start in chosen:
        plan = planned(imagenet, changes={"start": start})
        for name in imagenet["experiments"]:
            (run,) = plan.runs(name)
            assert run.training.start == start
            assert not run.training.model.options["norm_scale"]
            names = [path.name for path in run.source_weights]
            assert names.count("inception_v1.safetensors") == (start != "random")

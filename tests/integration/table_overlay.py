"""The experiments of the papers' tables in small: least widths, one step, a few videos in each data set's layout."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from pipeline_lib.configuration.experiments import Experiment
from pipeline_lib.models.catalogue import NETWORKS
from pipeline_lib.models.options import InceptionOptions, PredictedFlowOptions, ResNetOptions, SlowOptions
from pipeline_lib.planning.plan import Plan
from pipeline_lib.planning.run import with_sources

SIDE = 40
_NARROW: dict[type, dict[str, Any]] = {
    InceptionOptions: {"depth_multiplier": 0.0625, "minimum_depth": 8},
    PredictedFlowOptions: {"depth_multiplier": 0.0625, "minimum_depth": 8},
    ResNetOptions: {"width": 8},
    SlowOptions: {"width": 8},
}
CLASSES = ("Applauding", "Basketball")


def _clips(media: Path) -> list[Path]:
    """Six intact clips of three classes, two of each."""
    folder = media / "kinetics_sample" / "videos" / "train"
    return sorted(path for path in folder.glob("*.mp4") if path.name.split("_0")[0] in ("aBsEiLiNg01", "pAnCaKe_-03"))


def make_data(media: Path, folder: Path) -> dict[str, Any]:
    """Trees as UCF101, HMDB51, Something-something v1 and v2 and Sports-1M come, of the same few clips.

    Returns:
        The section ``datasets`` of an overlay.
    """
    clips = _clips(media)
    sections: dict[str, Any] = {
        "kinetics400": {
            "annotations": {
                "train": str(media / "kinetics_sample/train.csv"),
                "validation": str(media / "kinetics_sample/val.csv"),
            },
            "videos": [str(media / "kinetics_sample/videos/train"), str(media / "kinetics_sample/videos/val")],
        }
    }
    for name in ("kinetics400_mini", "kinetics600", "mini_kinetics200"):
        sections[name] = sections["kinetics400"]
    sections["ucf101"] = _ucf101(clips, folder / "ucf101")
    sections["hmdb51"] = _hmdb51(clips, folder / "hmdb51")
    sections["something_v2"] = _something_v2(clips, folder / "something_v2")
    sections["something_v1"] = _table("something_v1", clips, folder / "something_v1")
    sections["sports1m"] = _table("sports1m", clips, folder / "sports1m")
    return {name: {"num_shards": 1, "probe": "headers"} | section for name, section in sections.items()}


def _copied(clip: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(clip, target)
    return target


def _ucf101(clips: list[Path], folder: Path) -> dict[str, Any]:
    lists = folder / "lists"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(CLASSES, 1)))
    names = []
    for number, clip in enumerate(clips):
        name = CLASSES[number % 2]
        path = f"{name}/v_{name}_g{number // 2 + 1:02d}_c01.mp4"
        _copied(clip, folder / "videos" / path)
        names.append(path.replace(".mp4", ".avi"))
    for split in (1, 2, 3):
        train = "".join(f"{name} {CLASSES.index(name.split('/')[0]) + 1}\n" for name in names[:4])
        (lists / f"trainlist0{split}.txt").write_text(train)
        (lists / f"testlist0{split}.txt").write_text("".join(f"{name}\n" for name in names[4:]))
    return {"annotations": {"splits": str(lists)}, "videos": [str(folder / "videos")]}


def _hmdb51(clips: list[Path], folder: Path) -> dict[str, Any]:
    lists = folder / "lists"
    lists.mkdir(parents=True)
    for label, name in enumerate(("clap", "climb")):
        files = [f"{name}_{number}.avi" for number in range(3)]
        for number, file in enumerate(files):
            _copied(clips[2 * number + label], folder / "videos" / name / file.replace(".avi", ".mp4"))
        for split in (1, 2, 3):
            flags = "".join(f"{file} {1 if number < 2 else 2}\n" for number, file in enumerate(files))
            (lists / f"{name}_test_split{split}.txt").write_text(flags)
    return {"annotations": {"splits": str(lists)}, "videos": [str(folder / "videos")]}


def _something_v2(clips: list[Path], folder: Path) -> dict[str, Any]:
    entries = []
    for number, clip in enumerate(clips):
        _copied(clip, folder / "videos" / f"{number + 1}.mp4")
        template = ("Pushing [something] from left to right", "Holding [something]")[number % 2]
        entries.append({"id": str(number + 1), "template": template})
    paths = {}
    for name, found in (("train", entries[:4]), ("validation", entries[4:])):
        paths[name] = str(folder / f"{name}.json")
        Path(paths[name]).write_text(json.dumps(found))
    return {"annotations": paths, "videos": [str(folder / "videos")]}


def _table(name: str, clips: list[Path], folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    with open(folder / "list.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "subset"))
        for number, clip in enumerate(clips):
            writer.writerow((clip.name, f"class {number % 2}", "train" if number < 4 else "validation"))
    annotations = {"train": str(folder / "list.csv"), "validation": None}
    return {"format": "table", "annotations": annotations, "videos": [str(clips[0].parent)]}


def _recipe(changes: dict[str, Any]) -> dict[str, Any]:
    """What every recipe becomes, apart from the frames of its clips."""
    return {
        "global_batch": 4,
        "batch_norm_batch": 2,
        "checkpoint_steps": 1000,
        "sampling": {"crop": 32, "resize": [SIDE, SIDE], "short_side": None, "stride": 1},
    } | changes


def overlay(plan: Plan, tables: list[str], media: Path, folder: Path) -> dict[str, Any]:
    """An overlay with which the targets of these tables run in minutes on two cores."""
    runs = with_sources(plan.runs(*dict.fromkeys(one for name in tables for one in plan.experiments_of(name))))
    experiments: dict[str, Any] = {}
    recipes: dict[str, Any] = {}
    for run in runs:
        entry = run.entry
        if not isinstance(entry, Experiment):
            continue
        recipe = plan.configuration.recipes[entry.recipe]
        recipes[entry.recipe] = _recipe({"reestimate_batch_norm": min(recipe.reestimate_batch_norm, 1)})
        experiments[run.experiment] = {"model": {"options": _NARROW[NETWORKS[entry.model.name].options_model]}}
        sampling = entry.recipe_changes.get("sampling", {})
        if "crop" in sampling or "short_side" in sampling:
            experiments[run.experiment]["recipe_changes"] = {
                "sampling": {"crop": 32, "short_side": None, "resize": [SIDE, SIDE]}
            }
        if entry.objective.name == "modist":
            experiments[run.experiment]["objective"] = {"bank_size": 8, "hidden_width": 16, "dimension": 8}
    return {
        "start": "random",
        "trial": 0.000001,
        "hardware": {"device": "cpu", "num_threads": 1},
        "datasets": make_data(media, folder),
        "frame_formats": {
            name: {"short_side": SIDE, "frames_per_second": 5.0}
            for name in ("short256_25fps", "short256_native", "short128_native")
        },
        # Machines without RAFT's weights have TV-L1.
        "motions": {
            "flow_edges": {"parameters": {"source": "tvl1"}},
            "raft_back5": {"method": "tvl1", "gap": -5, "parameters": {}},
        },
        "protocols": {
            **{name: {"num_clips": 2} for name in ("ten_clips", "twenty_clips", "fifty_clips", "hundred_clips")},
            **{name: {"at_least": 16} for name in ("all_frames_250", "all_frames_250_reversed")},
            **{name: {"at_least": 16, "at_most": 24} for name in ("all_frames_64", "all_frames_64_reversed")},
            **{name: {"num_clips": 1, "crop": 32} for name in ("thirty_views", "thirty_views_128", "one_view_256")},
        },
        "recipes": recipes,
        "experiments": experiments,
    }

"""The number of shards follows the number of videos, and stays."""

from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.artefacts.sealing import write_sealed_json
from pipeline_lib.planning.current import reconcile
from pipeline_lib.planning.sharding import remember_shards, shards_for


def folder_of(path: Path, num_videos: int) -> Path:
    for number in range(num_videos):
        file = path / ("left", "right")[number % 2] / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return path


def overlay(path: Path, num_videos: int, **changes: Any) -> dict[str, Any]:
    dataset = {"format": "folder", "videos": [str(folder_of(path / "videos", num_videos))]} | changes
    return {"output": str(path / "output"), "datasets": {"mine": dataset}}


@pytest.mark.parametrize(
    ("num_videos", "expected"),
    # The last ones are the complete lists of HMDB51, UCF101, Something-Something v2, Kinetics-400 and -600.
    [(1, 1), (6, 1), (7, 2), (12, 2), (24, 2), (25, 4), (100, 8), (224, 8), (400, 16), (6_766, 64), (13_320, 64)]
    + [(193_690, 256), (266_440, 256), (422_623, 256)],
)
def test_shards_double_at_each_fourfold(num_videos: int, expected: int) -> None:
    assert shards_for(num_videos) == expected


def test_twelve_videos_are_two_jobs_a_stage_unless_it_is_set(planned: Any, tmp_path: Path) -> None:
    assert planned(overlay(tmp_path, 12)).configuration.datasets["mine"].shards == 2
    assert planned(overlay(tmp_path, 12, num_shards=7)).configuration.datasets["mine"].shards == 7
    filtered = overlay(tmp_path, 30, filter={"per_class": {"train": 2}, "largest_classes": 1}, validation_share=0.0)
    assert planned(filtered).configuration.datasets["mine"].shards == 1
    assert planned().configuration.datasets["generated"].shards == 2


def test_more_videos_do_not_change_a_number_that_was_used(planned: Any, tmp_path: Path) -> None:
    plan = planned(overlay(tmp_path, 12))
    summary = plan.layout.summary("mine")
    summary.parent.mkdir(parents=True)
    record = {"parameters": {"dataset": {"num_shards": 2}}, "inputs": {}, "code": "", "digest": ""}
    write_sealed_json(summary, {"provenance": record})
    more = overlay(tmp_path, 200)
    assert planned(more).configuration.datasets["mine"].shards == 2
    # Snakemake deletes the manifest before it is made again, and a job of a cluster plans after that.
    remember_shards(plan.layout, "mine")
    summary.unlink()
    again = planned(more)
    assert again.configuration.datasets["mine"].shards == 2
    # A plan alone, as a dry run makes one, decides nothing.
    plan.layout.chosen_shards("mine").unlink()
    reconcile(again)
    assert not plan.layout.chosen_shards("mine").exists()
    assert planned(more).configuration.datasets["mine"].shards == 8


def test_each_selection_has_a_page_of_its_own(planned: Any) -> None:
    pages = []
    for select in (
        ["demo"],
        ["d3d_demo"],
        ["d3d_demo", "baseline_demo"],
        ["d3d_k400"] * 20 + ["demo"],
        ["d3d_k400"] * 21,
    ):
        plan = planned({"select": select})
        assert plan.selected in plan.report_names
        assert plan.experiments_of(plan.selected) == plan.experiments_of(*select)
        pages.append(plan.layout.report(plan.selected))
    assert len(set(pages)) == len(pages) and all(len(page.name) < 100 for page in pages)
    assert pages[0].name == "demo.html" and pages[2].name == "d3d_demo+baseline_demo.html"
    with pytest.raises(Exception, match="`select` in the configuration is empty"):
        empty = planned({"select": []})
        empty.datasets_behind(empty.selected)

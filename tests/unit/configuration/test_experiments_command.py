"""``python -m pipeline_lib experiments``: the list of what can be trained, beside the papers' numbers."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.__main__ import main


def listed(repository: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["experiments", "--project", str(repository), "--json", *arguments]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_every_experiment_of_the_files_is_listed(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = {
        name
        for path in (repository / "workflow" / "experiments").glob("*.yaml")
        for name in yaml.safe_load(path.read_text())
        if not name.startswith("_")
    }
    entries = {entry["name"]: entry for entry in listed(repository, capsys)}
    assert set(entries) == written
    student = entries["d3d_k400"]
    assert (student["stage"], student["dataset"], student["model"], student["recipe"]) == (
        "distill",
        "kinetics400",
        "s3dg_slim",
        "d3d",
    )
    assert student["teacher"] == "teacher_k400"
    assert student["printed"][0] == {
        "source": "D3D, Table 2",
        "protocol": "all_frames_250",
        "figures": {"video_top1": 75.9},
        "differs": None,
    }
    assert student["differs"] == []
    assert entries["two_stream_k400"]["members"] == ["baseline_k400", "teacher_k400"]
    assert entries["two_stream_k400"]["modality"] == "rgb+flow"


def test_the_table_shows_one_line_an_experiment(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments", "--project", str(repository), "distill_k400"]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "experiment"
    assert [line.split()[0] for line in lines] == ["d3d_k400", "teacher_k400"]
    assert "D3D, Table 2: video_top1 75.9" in lines[0]
    assert "s3dg_slim (flow)" in lines[1]
    assert main(["experiments", "--project", str(repository), "i3d_something"]) == 0
    line = capsys.readouterr().out.splitlines()[2]
    assert "S3D-G, Table 3: video_top1 45.8, video_top5 76.5" in line
    assert "S3D-G, Table 1 (all_frames_64_reversed): video_top1 15.2" in line
    start = head.index("stage")
    assert all(line[start - 2 : start] == "  " and line[start] != " " for line in lines)


def test_overlays_count_and_unknown_names_are_refused(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "my.yaml"
    overlay.write_text("experiments: {d3d_demo: {recipe: d3d}}\n")
    assert listed(repository, capsys, "d3d_demo", "--configfile", str(overlay))[0]["recipe"] == "d3d"
    assert main(["experiments", "--project", str(repository), "d3d_dmeo"]) == 2
    assert "Did you mean `d3d_demo`?" in capsys.readouterr().err


def test_a_full_disk_is_told_in_one_sentence(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A device that refuses every byte as a full disk does.
    full = open("/dev/full", "w")
    monkeypatch.setattr(sys, "stdout", full)
    status = main(["experiments", "--project", str(repository), "--json"])
    monkeypatch.undo()
    with suppress(OSError):
        full.close()
    assert status == 1
    assert capsys.readouterr().err.startswith("error: no room on the disk")


def test_words_stages_and_data_sets_choose(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def names(*words: str) -> list[str]:
        return [entry["name"] for entry in listed(repository, capsys, *words)]

    assert names("--stage", "pretrain", "--dataset", "generated_long") == ["modist_demo", "rgb_only_demo"]
    # A name stands for itself, or for a target's experiments; other words are looked for in the whole line.
    assert names("demo", "AT MIXED_4F") == ["d3d_demo"]
    assert "baseline_demo" in names("spatial stream (rgb), trained")
    for words, message in (
        (("--stage", "distil"), "--stage distil: no experiment here has it. Did you mean `distill`?"),
        (("--dataset", "kinetics40"), "Did you mean `kinetics400`?"),
        (("zebra",), "no line of an experiment has this word"),
    ):
        assert main(["experiments", "--project", str(repository), *words]) == 2
        assert message in capsys.readouterr().err


def test_a_terminal_gets_lines_of_its_width(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for width, shown in (("80", {"experiment", "stage", "description"}), ("160", {"network", "recipe"})):
        monkeypatch.setenv("COLUMNS", width)
        assert main(["experiments", "--project", str(repository), "demo"]) == 0
        lines = capsys.readouterr().out.splitlines()
        table = [*lines, ""][: [*lines, ""].index("")]
        assert max(map(len, table)) <= int(width) and shown <= set(table[0].split())
        assert any(line.startswith("d3d_demo ") for line in table)

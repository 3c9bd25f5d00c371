"""``python -m pipeline_lib tables``: every table of the papers, and what is missing to run each."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline_lib.__main__ import main


def printed(repository: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["tables", "--project", str(repository), *arguments]) == 0
    return capsys.readouterr().out


def test_every_table_has_a_line_with_what_it_lacks(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = [
        name
        for path in sorted((repository / "workflow" / "tables").glob("*.yaml"))
        for name in yaml.safe_load(path.read_text())
    ]
    assert len(written) == 39
    head, _, *lines = printed(repository, capsys).splitlines()
    assert [line.split()[0] for line in lines[:39]] == written
    assert head.split("  ")[0] == "table"
    (line,) = (line for line in lines if line.startswith("d3d_table4 "))
    assert "3 of 3 rows, 14 quoted" in line
    assert "ucf101, hmdb51, kinetics400, kinetics600, googlenet" in line
    (line,) = (line for line in lines if line.startswith("s3dg_table6 "))
    assert "needs action detection" in line


def test_one_table_is_shown_row_by_row(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(repository, capsys, "r2plus1d_table3")
    assert "r2plus1d_18_8f_to_32f_k400" in text and "59.8" in text and "20.5" in text
    assert "datasets.kinetics400.annotations.train is not set" in text
    assert "googlenet" not in text
    (entry,) = json.loads(printed(repository, capsys, "r2plus1d_table3", "--json"))
    assert entry["number"] == "Table 3"
    assert len(entry["missing"]) == 1
    assert main(["tables", "--project", str(repository), "d3d_table_2"]) == 2
    assert "d3d_table2" in capsys.readouterr().err


def test_what_is_there_is_not_missing(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text("label,youtube_id,time_start,time_end,split\n")
    annotations = {"train": str(tmp_path / "train.csv"), "validation": str(tmp_path / "val.csv")}
    overlay = {"datasets": {"kinetics400": {"annotations": annotations, "videos": [str(tmp_path)]}}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(overlay))
    text = printed(repository, capsys, "r2plus1d_table3", "--configfile", str(tmp_path / "my.yaml"))
    assert "To run it: nothing is missing" in text

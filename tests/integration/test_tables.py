"""Every table of the papers through Snakemake, from videos to its report, in small."""

import html
import re
from pathlib import Path

import pytest
import yaml
from small_project import copy_sources
from table_overlay import overlay

from pipeline_lib.configuration.tables import PaperTable
from pipeline_lib.planning.plan import load_plan

REPOSITORY = Path(__file__).resolve().parents[2]
TABLES = {name: table for name, table in load_plan(REPOSITORY).configuration.tables.items() if table.experiments}
QUICK = ["s3dg_table2"]


def check(project_folder: Path, name: str, table: PaperTable) -> None:
    """The report shows the table as printed, ours beside it, and says that this was a trial in small."""
    page = (project_folder / "output" / "report" / f"{name}.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]*>", " ", page))
    assert table.source in text
    for row in table.rows:
        assert row.label in text, row.label
        for number in row.printed.values():
            assert re.search(rf"(?<![\d.]){number:g}", text.replace(",", "")), number
    marks = [line for line in text.splitlines() if "Differs from the paper:" in line]
    assert marks and all("a trial of 1e-06 of the recipe's steps" in line for line in marks)


def run(media: Path, folder: Path, names: list[str]) -> None:
    project = copy_sources(REPOSITORY, folder / "project")
    values = overlay(load_plan(REPOSITORY), names, media, folder / "data")
    (project.folder / "small.yaml").write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    project.succeed(*names, seconds=7000)
    for name in names:
        check(project.folder, name, TABLES[name])


@pytest.mark.media
@pytest.mark.timeout(1800)
def test_a_table_becomes_a_report(media: Path, tmp_path: Path) -> None:
    run(media, tmp_path, QUICK)


@pytest.mark.soak
@pytest.mark.media
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("paper", ["D3D", "S3D-G", "R(2+1)D", "MoDist"])
def test_every_table_becomes_a_report(media: Path, tmp_path: Path, paper: str) -> None:
    run(media, tmp_path, [name for name, table in TABLES.items() if table.paper == paper])

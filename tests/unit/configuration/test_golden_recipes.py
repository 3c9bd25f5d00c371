"""The resolved experiments of each paper, reviewed by a person: a change of any number is seen in a diff.

After a wanted change: ``python tests/unit/configuration/test_golden_recipes.py`` writes the files.
"""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "golden"
sys.path.insert(0, str(FOLDER.parent))

from golden_recipes import PAPERS, text  # noqa: E402

from pipeline_lib.planning.plan import Plan, load_plan  # noqa: E402


@pytest.fixture(scope="module")
def plan(repository: Path) -> Plan:
    return load_plan(repository)


@pytest.mark.parametrize("paper", PAPERS)
def test_the_experiments_of_a_paper_are_as_reviewed(plan: Plan, paper: str) -> None:
    reviewed = (FOLDER / f"{PAPERS[paper]}.txt").read_text(encoding="utf-8")
    assert text(plan, paper) == reviewed, f"look at the difference, then run: python {Path(__file__).name}"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for paper, name in PAPERS.items():
        (FOLDER / f"{name}.txt").write_text(text(load_plan(FOLDER.parents[1]), paper), encoding="utf-8")

from pathlib import Path

import pytest

from pipeline_lib.artefacts.manifest_summary import ManifestSummary, read_summary
from pipeline_lib.artefacts.sealing import write_sealed_json
from pipeline_lib.errors import UserError


def test_a_summary_is_read_by_its_known_keys(tmp_path: Path) -> None:
    path = tmp_path / "ucf101/summary.json"
    write_sealed_json(path, {"digest": "a" * 64, "classes": ["run"], "status": {"accepted": 3}, "num_boxes": 0})
    assert read_summary(path) == ManifestSummary("a" * 64, ["run"], status={"accepted": 3})


@pytest.mark.parametrize("content", [None, "{", "[]", '{"classes": []}'])
def test_what_is_missing_or_damaged_names_the_target_that_makes_it(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "manifests/ucf101/summary.json"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"summary.json is (missing|damaged): .*snakemake --cores all .*summary.json"):
        read_summary(path)

"""The project's own configuration with a change laid over it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.planning.plan import Plan, load_plan

Planned = Callable[..., Plan]


@pytest.fixture
def planned(repository: Path, tmp_path: Path) -> Planned:
    """A function: the plan of the project's configuration under an overlay ``my.yaml`` and ``--config`` values."""

    def plan(overlay: dict[str, Any] | None = None, changes: dict[str, Any] | None = None) -> Plan:
        path = tmp_path / "my.yaml"
        path.write_text(yaml.safe_dump(overlay or {}), encoding="utf-8")
        return load_plan(repository, [path], changes)

    return plan

"""Fixtures for all tests: where the real media lie, and what is not run without them."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run: what a submission is judged by must not depend on luck.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

REPOSITORY = Path(__file__).resolve().parent.parent
MEDIA = Path(os.environ.get("PIPELINE_MEDIA", REPOSITORY.parent / "shared" / "media"))
WEIGHTS = Path(os.environ.get("PIPELINE_WEIGHTS", MEDIA.parent / "weights"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the soak tests, with their larger counts")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "soak" in item.keywords and not config.getoption("--soak"):
            item.add_marker(pytest.mark.skip(reason="runs in make soak"))
        if "media" in item.keywords and not MEDIA.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no real media at {MEDIA}; set PIPELINE_MEDIA"))


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real clips and annotations; tests that use it carry the marker ``media``."""
    return MEDIA


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of real weights; tests that use it carry the marker ``media``."""
    return WEIGHTS


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the clone."""
    return REPOSITORY

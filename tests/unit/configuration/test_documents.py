"""The documents: they begin with a command, end with where to look next, and name only what exists."""

import importlib
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from pipeline_lib.configuration.root import Configuration

REPOSITORY = Path(__file__).parents[3]
DOCUMENTS = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md"]
FOLDERS = "pipeline_lib|docs|tests|benchmarks|workflow|profiles|rules|envs"
ROOMS = "|".join(path.parent.name for path in sorted((REPOSITORY / "pipeline_lib").glob("*/__init__.py")))
GLOSSARY = REPOSITORY / "docs" / "glossary.md"


def rows(path: Path) -> list[list[str]]:
    """Cells of the rows of all tables whose first column is ``Word``."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]
    return [row for row in found if row[0] != "Word" and not set(row[0]) <= set("- ")]


def anchors(path: Path) -> set[str]:
    """GitHub's anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(name: str) -> bool:
    """Whether a dotted name below ``pipeline_lib`` is a module, or an attribute or field of what a module holds."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(["pipeline_lib", *words[:count]]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            fields = getattr(found, "__annotations__", {}) | getattr(found, "model_fields", {})
            if not hasattr(found, word) and word not in fields:
                return False
            found = getattr(found, word, None)
        return True
    return False


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation such as ``dict[str, Experiment | Ensemble]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in sections(part)]


def is_key(path: str) -> bool:
    """Whether a dotted path, with ``NAME`` for any name, is a key of the configuration."""
    models: list[type[BaseModel]] = [Configuration]
    for word in path.split("."):
        if word == "NAME":
            continue
        fields = [model.model_fields[word] for model in models if word in model.model_fields]
        if not fields:
            return False
        models = [model for field in fields for model in sections(field.annotation)]
    return True


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for code in re.findall(rf"`((?:{FOLDERS})/[^\s`]*)", text):
        name = code.split("::")[0].rstrip("/,")
        if not re.search(r"[*{}]|[A-Z]{3}", name):
            assert (REPOSITORY / name).exists(), code
    for name in re.findall(rf"`((?:{ROOMS})/[\w/]+\.py)`", text):
        assert (REPOSITORY / "pipeline_lib" / name).exists(), name
    for name in re.findall(r"\bdocs/\w+\.md", text):
        assert (REPOSITORY / name).exists(), name
    for name in re.findall(r"`pipeline_lib\.([\w.]+)", text):
        assert exists(name), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_begins_with_a_command_and_ends_with_where_to_look_next(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("```sh") for line in lines[:16]), "no command in the first lines"
    last = [line for line in lines if line.startswith("## ")][-1]
    assert last in ("## Where to look next", "## More"), last


def test_code_and_settings_refer_to_documents_that_exist() -> None:
    files = [path for folder in FOLDERS.split("|") for path in (REPOSITORY / folder).rglob("*")]
    for path in [*files, REPOSITORY / "Snakefile", REPOSITORY / "config.yaml"]:
        if path.suffix in (".py", ".smk", ".yaml", "") and path.is_file():
            for name in re.findall(r"\bdocs/\w+\.md", path.read_text(encoding="utf-8")):
                assert (REPOSITORY / name).exists(), f"{path}: {name}"


def test_the_glossary_explains_each_word_once() -> None:
    words = [word.strip() for row in rows(GLOSSARY) for word in row[0].split(",")]
    assert len(words) > 50 and len(words) == len(set(words))


@pytest.mark.parametrize("row", rows(GLOSSARY), ids=lambda row: row[0])
def test_what_the_glossary_names_exists(row: list[str]) -> None:
    _, meaning, code, key = row
    assert meaning
    for name in re.findall(r"`([^`]+)`", code):
        assert exists(name), name
    for name in re.findall(r"`([^`]+)`", key):
        assert is_key(name), name

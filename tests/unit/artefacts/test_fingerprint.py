import ast
from pathlib import Path

import pytest

from pipeline_lib.artefacts import fingerprint
from pipeline_lib.artefacts.fingerprint import closure, code_fingerprint

SOURCES = {
    "__init__": "",
    "stage": '"""Stage."""\nfrom pipeline_lib.helper import f\n\ndef run():\n    """Run."""\n    return f()\n',
    "helper": "import pipeline_lib.deep\n\ndef f():\n    return pipeline_lib.deep.value  # a comment\n",
    "deep": "value = 1\n",
    "other": "value = 2\n",
    "errors": "class UserError(Exception): ...\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pipeline_lib"
    folder.mkdir()
    for name, text in SOURCES.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(fingerprint, "PACKAGE_FOLDER", folder)
    return folder


STAGE = ["pipeline_lib.stage"]


@pytest.mark.usefixtures("package")
def test_closure_follows_imports_of_both_forms() -> None:
    assert [name for name in closure(STAGE) if name != "pipeline_lib"] == [
        "pipeline_lib.deep",
        "pipeline_lib.helper",
        "pipeline_lib.stage",
    ]


@pytest.mark.parametrize(
    ("name", "old", "new", "changes"),
    [
        ("stage", '"""Run."""', '"""Run the stage; a longer text."""', False),
        ("stage", '"""Stage."""\n', "", False),
        ("helper", "  # a comment", "  # another comment", False),
        ("helper", "return pipeline_lib.deep.value", "return (pipeline_lib.deep.value)", False),
        ("other", "value = 2", "value = 3", False),
        ("errors", "...", "pass", False),
        ("deep", "value = 1", "value = 2", True),
        ("helper", "deep.value", "deep.value + 1", True),
        ("stage", "return f()", "f()", True),
    ],
)
def test_only_code_changes_the_fingerprint(package: Path, name: str, old: str, new: str, changes: bool) -> None:
    before = code_fingerprint(STAGE)
    path = package / f"{name}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new) + "\n\n")
    assert (code_fingerprint(STAGE) != before) is changes


def test_an_edit_to_a_data_file_changes_the_fingerprint_of_those_that_read_it(package: Path) -> None:
    (package / "deep.py").write_text('DATA_FILES = ("page.css",)\nvalue = 1\n')
    (package / "page.css").write_text("a {}")
    before, other = code_fingerprint(STAGE), code_fingerprint(["pipeline_lib.other"])
    (package / "page.css").write_text("b {}")
    assert code_fingerprint(STAGE) != before
    assert code_fingerprint(["pipeline_lib.other"]) == other


def test_every_file_of_the_package_that_is_no_module_is_a_data_file_of_one() -> None:
    folder = fingerprint.PACKAGE_FOLDER
    named = {
        file
        for path in folder.rglob("*.py")
        for file in fingerprint._parse(
            ".".join(("pipeline_lib", *path.relative_to(folder).with_suffix("").parts))
        ).data_files
    }
    # py.typed says that the package has types; no code reads it.
    others = {path for path in folder.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".typed")}
    found = {path for path in others if path.parent.name != "__pycache__"}
    assert found == named and found


def test_the_fingerprint_survives_moving_the_repository(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_fingerprint(STAGE)
    moved = tmp_path / "elsewhere"
    package.rename(moved)
    monkeypatch.setattr(fingerprint, "PACKAGE_FOLDER", moved)
    assert code_fingerprint(STAGE) == before


def test_relative_imports_are_refused(package: Path) -> None:
    (package / "deep.py").write_text("from . import other\n")
    with pytest.raises(ValueError, match="relative import"):
        closure(STAGE)


@pytest.mark.usefixtures("package")
def test_an_unknown_module_is_refused() -> None:
    with pytest.raises(ValueError, match="not a module"):
        closure(["pipeline_lib.absent"])


def test_the_package_holds_no_relative_import_and_no_unexpected_dynamic_one() -> None:
    """The fingerprint misses dynamic imports; those of parts that are chosen by name are known."""
    dynamic = set()
    for path in fingerprint.PACKAGE_FOLDER.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
            if (isinstance(node, ast.Attribute) and node.attr == "import_module") or (
                isinstance(node, ast.Name) and node.id == "__import__"
            ):
                dynamic.add(path.relative_to(fingerprint.PACKAGE_FOLDER).parts[0])
    # Commands, `load`; importers, methods, networks, tasks and objectives, whose modules are roots of their stages; the
    # count of a network in a report, which is made again with the network's weights.
    assert dynamic <= {"__main__.py", "__init__.py", "manifests", "flow", "models", "tasks", "training", "reporting"}

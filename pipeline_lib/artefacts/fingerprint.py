"""The fingerprint of the code that a stage runs.

Snakemake's own triggers do not see an edit to a module behind ``python -m``. Each rule therefore carries the
hash of the syntax trees, docstrings stripped, of its stage's modules and of everything that these import inside
``pipeline_lib``: an edit to the code reruns the stage, an edit to a comment or a docstring reruns nothing.

A module that reads files of the package (a page, a style sheet) names those beside it in a constant
``DATA_FILES = ("page.html.j2", ...)``: their bytes count as its code.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = "pipeline_lib"
SHAPES_NO_ARTEFACT = True

PACKAGE_FOLDER = Path(__file__).resolve().parent.parent

# A module with this mark (or a package with it in ``__init__``) is left out of every closure, with all that only it
# imports, because it changes no artefact: it talks to people or checks configurations. The values of a configuration
# reach a stage as parameters, which rerun it.
MARK = "SHAPES_NO_ARTEFACT"


def module_file(module: str) -> Path | None:
    """The source file of a module of the package; None if ``module`` is not one."""
    if module != PACKAGE and not module.startswith(PACKAGE + "."):
        return None
    base = PACKAGE_FOLDER.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _marks(tree: ast.Module) -> bool:
    names = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return any(isinstance(name, ast.Name) and name.id == MARK for name in names)


def _is_transparent(module: str) -> bool:
    """Whether a module or a package above it shapes no artefact."""
    parts = module.split(".")
    above = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return any(_parse(name).marked for name in above if module_file(name) is not None)


def strip_docstrings(tree: ast.Module) -> ast.Module:
    """Remove the docstrings of a module, its classes and its functions, in place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            first = body[0] if body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:] or [ast.Pass()]
    return tree


class _Parsed(NamedTuple):
    """A file's syntax tree as a hash, the package's modules that it imports, whether it is marked, its data files."""

    hash: str
    imported: frozenset[str]
    marked: bool
    data_files: tuple[Path, ...]


@cache
def _parsed(path: Path, _mtime_ns: int, _size: int) -> _Parsed:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imported: set[str] = set()
    data_files: list[Path] = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "DATA_FILES":
            data_files = [path.parent / name for name in ast.literal_eval(statement.value)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imported.add(node.module)
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level > 0:
            raise ValueError(
                f"{path}:{node.lineno}: relative import; write the full name, or the fingerprint misses it"
            )
    text = ast.dump(strip_docstrings(tree), include_attributes=False)
    known = frozenset(name for name in imported if module_file(name) is not None)
    return _Parsed(hashlib.sha256(text.encode()).hexdigest(), known, _marks(tree), tuple(data_files))


def _parse(module: str) -> _Parsed:
    path = module_file(module)
    if path is None:
        raise ValueError(f"{module} is not a module of {PACKAGE}")
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


def closure(modules: Iterable[str]) -> list[str]:
    """The modules and everything that they import inside the package, sorted.

    Args:
        modules: full names (``pipeline_lib.flow.motion_stage``).

    Raises:
        ValueError: a name is not a module of the package, or a file uses a relative import.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or _is_transparent(module):
            continue
        found.add(module)
        waiting.extend(_parse(module).imported)
    return sorted(found)


def code_fingerprint(modules: Iterable[str]) -> str:
    """SHA-256 (64 hexadecimal digits) over the syntax trees of the closure of ``modules``, and their data files."""
    lines = []
    for module in closure(modules):
        parsed = _parse(module)
        lines.append(f"{module} {parsed.hash}")
        lines += [f"{module} {file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in parsed.data_files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

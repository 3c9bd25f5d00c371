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

PACKAGE = "pipeline_lib"
PACKAGE_FOLDER = Path(__file__).resolve().parent.parent

# Left out of every closure, with all that only they import: what talks to people or checks configurations does not
# change an artefact. The values of a configuration reach a stage as parameters, which are triggers of their own.
TRANSPARENT = (
    f"{PACKAGE}.cli",
    f"{PACKAGE}.configuration",
    f"{PACKAGE}.artefacts.layout",
    f"{PACKAGE}.artefacts.progress",
    f"{PACKAGE}.artefacts.stages",
    f"{PACKAGE}.artefacts.fingerprint",
    f"{PACKAGE}.artefacts.provenance",
    f"{PACKAGE}.artefacts.locking",
    f"{PACKAGE}.errors",
    # Names of networks: the options behind a name are part of each specification.
    f"{PACKAGE}.models.catalogue",
    f"{PACKAGE}.__main__",
)


def module_file(module: str) -> Path | None:
    """The source file of a module of the package, or None if ``module`` is none."""
    if module != PACKAGE and not module.startswith(PACKAGE + "."):
        return None
    base = PACKAGE_FOLDER.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _is_transparent(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in TRANSPARENT)


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


@cache
def _parsed(path: Path, _mtime_ns: int, _size: int) -> tuple[str, frozenset[str], tuple[Path, ...]]:
    """Hash of a file's syntax tree, the package's modules that it imports, and its data files."""
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
    modules = frozenset(name for name in imported if module_file(name) is not None)
    return hashlib.sha256(text.encode()).hexdigest(), modules, tuple(data_files)


def _parse(module: str) -> tuple[str, frozenset[str], tuple[Path, ...]]:
    path = module_file(module)
    if path is None:
        raise ValueError(f"{module} is no module of {PACKAGE}")
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


def closure(modules: Iterable[str]) -> list[str]:
    """The modules and everything that they import inside the package, sorted.

    Args:
        modules: full names (``pipeline_lib.flow.motion_stage``).

    Raises:
        ValueError: a name is no module of the package, or a file uses a relative import.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or _is_transparent(module):
            continue
        found.add(module)
        waiting.extend(_parse(module)[1])
    return sorted(found)


def code_fingerprint(modules: Iterable[str]) -> str:
    """SHA-256 (64 hexadecimal digits) over the syntax trees of the closure of ``modules``, and their data files."""
    lines = []
    for module in closure(modules):
        code, _, data_files = _parse(module)
        lines.append(f"{module} {code}")
        lines += [f"{module} {file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in data_files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

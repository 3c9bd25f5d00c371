"""The options that each network takes."""

import ast
from functools import cache

from pipeline_lib.artefacts.fingerprint import module_file
from pipeline_lib.models.catalogue import names, resolve


@cache
def _keywords(module: str) -> frozenset[str]:
    """The options of a network's builder, read from its source: an import would load torch, which takes seconds."""
    path = module_file(module)
    assert path is not None, module
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "build":
            return frozenset(argument.arg for argument in node.args.kwonlyargs)
    raise AssertionError(f"{module} has no build")


def network_options() -> dict[str, frozenset[str]]:
    """The options that each network takes, by its name."""
    return {name: _keywords(resolve(name)[0]) for name in names()}

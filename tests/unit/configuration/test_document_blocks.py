"""Every code block of the documents is run by a test or says why not, and names only what exists.

``make check`` runs this;
tests/integration/test_document_commands.py runs the blocks.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import io
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import documents
import pytest
import yaml
from documents import DOCUMENTS, REPOSITORY, RUN, Block, blocks, commands, rule_names, settings
from snakemake.cli import get_argument_parser

from pipeline_lib.__main__ import command_names
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.errors import UserError
from pipeline_lib.planning.plan import Plan, load_plan

WHAT_TO_DO = (
    "this block is neither run nor marked. Give it a language that tests run (```sh: the project's commands; "
    "```python; ```yaml: what my.yaml may hold, from its first key on), or write directly above it why not: "
    "<!-- not run: needs a GPU -->"
)
INLINE = re.compile(r"`((?:snakemake|python -m pipeline_lib|make) [^`]+)`")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]{2,}|…|[{}*]")
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def load_settings(path: Path) -> Plan:
    """The plan of a reader who copied all of a document's YAML."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "my.yaml"
        file.write_text(yaml.safe_dump(settings(path), sort_keys=False), encoding="utf-8")
        return load_plan(REPOSITORY, [file])


@cache
def plan_of(path: Path) -> Plan:
    """The same; the project's own where a document's YAML is wrong, which one test says."""
    try:
        return load_settings(path)
    except UserError:
        return load_plan(REPOSITORY, [])


def parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """What a parser makes of a command's words; what it would print is the error's text."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parser.parse_args(words)
    except SystemExit:
        raise ValueError(said.getvalue().strip().splitlines()[-1]) from None


def check_names(plan: Plan, names: Sequence[str]) -> None:
    configuration = plan.configuration
    known = {*plan.targets, *configuration.experiments, *configuration.tables, *rule_names()}
    for name in names:
        if not PLACEHOLDER.search(name) and "/" not in name and name.split("@")[0] not in known:
            raise ValueError(f"there is no experiment, target, table or rule `{name}`")


def check_snakemake(words: Sequence[str], plan: Plan) -> None:
    options = parsed(snakemake_parser(), words)
    for file in options.configfile or []:
        if Path(file).suffix != ".yaml":
            raise ValueError(f"--configfile takes `{file}` too: put `--` before the target, or the target first")
    for value in options.config or []:
        key = value.split("=")[0].split(".")[0]
        if key == "set":
            # Its keys and values are checked as a run would check them.
            load_plan(REPOSITORY, [], {"set": value.partition("=")[2]})
        elif key not in Configuration.model_fields:
            raise ValueError(f"--config {value}: there is no key `{key}`")
    for profile in options.profile or []:
        if not (REPOSITORY / profile / "config.yaml").exists():
            raise ValueError(f"there is no profile {profile}")
    check_names(plan, [*map(str, options.targets), *map(str, options.forcerun or ())])
    for setting in words[words.index("--set-resources") + 1 :] if "--set-resources" in words else ():
        rule, colon, _ = setting.partition(":")
        if colon and rule not in rule_names():
            raise ValueError(f"--set-resources: there is no rule `{rule}`")


@cache
def snakemake_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = get_argument_parser()
    return parser


def check_pipeline_lib(words: Sequence[str], plan: Plan) -> None:
    if not words or words[0] not in command_names():
        if words and words[0].startswith("--"):
            return
        raise ValueError(f"there is no command `{' '.join(words[:1])}` of pipeline_lib")
    parser = argparse.ArgumentParser()
    importlib.import_module(f"pipeline_lib.cli.{words[0].replace('-', '_')}").add_arguments(parser)
    options = vars(parsed(parser, words[1:]))
    for option in ("experiment", "experiments", "target", "protocol"):
        value = options.get(option)
        values = [str(each) for each in (value if isinstance(value, list) else [value]) if each]
        if option != "protocol":
            check_names(plan, [value for value in values if not Path(value).suffix])
        elif unknown := [each for each in values if each not in plan.configuration.protocols]:
            raise ValueError(f"there is no protocol `{unknown[0]}`")


def check_make(words: Sequence[str]) -> None:
    known = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for word in words:
        if "=" not in word and not word.startswith("-") and word not in known:
            raise ValueError(f"there is no target `{word}` of make")


def check_command(words: Sequence[str], plan: Plan, is_run: bool) -> None:
    """Refuse a command that cannot be as it is printed.

    Raises:
        ValueError: what is wrong with it.
    """
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    words = words[: next((place for place, word in enumerate(words) if word[0] in "<>"), len(words))]
    match list(words):
        case []:
            return
        case ["snakemake", *rest]:
            check_snakemake(rest, plan)
        case ["python", "-m", "pipeline_lib", *rest]:
            check_pipeline_lib(rest, plan)
        case ["make", *rest]:
            check_make(rest)
        case ["python", file, *_] if file.endswith(".py"):
            if not (REPOSITORY / file).exists():
                raise ValueError(f"there is no file {file}")
        case [".", ".venv/bin/activate"]:
            return
        case [program, *_] if is_run and program not in documents.PROGRAMS:
            raise ValueError(f"no test knows the program `{program}`: {WHAT_TO_DO}")


def problem_of(check: Callable[[], Any]) -> str | None:
    try:
        check()
    except (ValueError, UserError, SyntaxError, yaml.YAMLError) as error:
        return str(error)
    return None


def check_block(block: Block) -> None:
    is_run = block.reason is None
    if is_run and block.language not in RUN:
        raise ValueError(WHAT_TO_DO)
    if block.language == "sh":
        for words in commands(block.text):
            if problem := problem_of(lambda words=words: check_command(words, plan_of(block.path), is_run)):  # type: ignore[misc]
                raise ValueError(f"`{' '.join(words)}`: {problem}")
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "python":
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and is_run:
                module = importlib.import_module(str(node.module))
                known = [*vars(module), *getattr(module, "__all__", ())]
                if missing := [name.name for name in node.names if name.name not in known]:
                    raise ValueError(f"{node.module} has no `{missing[0]}`")
    elif block.language == "yaml" and is_run:
        unknown = set(yaml.safe_load(block.text)) - set(Configuration.model_fields)
        if unknown:
            raise ValueError(
                f"`{min(unknown)}` is no key of config.yaml: show it from the configuration's first key on"
            )


@every_document
def test_every_block_is_run_or_says_why_not_and_names_only_what_exists(path: Path) -> None:
    problems = [(block, problem_of(lambda block=block: check_block(block))) for block in blocks(path)]  # type: ignore[misc]
    found = [f"{block}: {problem}" for block, problem in problems if problem]
    assert not found, "\n".join(found)


@every_document
def test_the_settings_of_a_document_are_a_configuration(path: Path) -> None:
    """What it shows in YAML, laid over what docs/configuration.md shows."""
    load_settings(path)


@every_document
def test_commands_inside_sentences_are_as_the_programs_take_them(path: Path) -> None:
    problems = []
    for command in INLINE.findall(path.read_text(encoding="utf-8")):
        if "…" in command:
            continue
        for words in commands(command):
            problem = problem_of(lambda words=words: check_command(words, plan_of(path), False))  # type: ignore[misc]
            # A command may be named without what it needs.
            if problem and "are required" not in problem:
                problems += [f"{path.name}: `{command}`: {problem}"]
    assert not problems, "\n".join(problems)


@every_document
def test_commands_stand_in_fences(path: Path) -> None:
    """Because an indented line is neither marked nor run."""
    indented = re.findall(
        r"^    (?:snakemake|python|torchrun|make) .*$", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    outside = [
        line for line in indented if line.strip() not in {text for b in blocks(path) for text in b.text.split("\n")}
    ]
    assert not outside, f"put between ```sh and ```: {outside[0]}"


@pytest.mark.parametrize(
    ("text", "language", "problem"),
    [
        ("snakemake --cores all --configfile my.yaml distill_k400", "sh", "put `--` before the target"),
        ("snakemake --cores all distil_k400", "sh", "no experiment, target, table or rule `distil_k400`"),
        ("snakemake --cores all demo --config trail=0.1", "sh", "no key `trail`"),
        ("snakemake --cores all demo --queit", "sh", "unrecognized arguments: --queit"),
        ("python -m pipeline_lib plan distill_k400 --tarjet x", "sh", "unrecognized arguments: --tarjet"),
        ("python -m pipeline_lib pln", "sh", "no command `pln`"),
        ("make tests", "sh", "no target `tests` of make"),
        ("wget somewhere", "sh", "no test knows the program `wget`"),
        ("a b", "", "neither run nor marked"),
        ("from pipeline_lib import lode", "python", "pipeline_lib has no `lode`"),
        ("filter: {total: 3}", "yaml", "`filter` is no key of config.yaml"),
    ],
)
def test_what_does_not_run_is_noticed(text: str, language: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        check_block(Block(REPOSITORY / "README.md", 1, language, text + "\n", None))


def test_a_mark_stands_directly_above(tmp_path: Path) -> None:
    file = tmp_path / "one.md"
    file.write_text(
        "<!-- not run: needs a GPU -->\n```sh\nnvidia-smi\n```\n\n<!-- not run: far -->\n\n```sh\nls\n```\n"
    )
    assert [block.reason for block in blocks(file)] == ["needs a GPU", None]
    assert [block.line for block in blocks(file)] == [2, 8]

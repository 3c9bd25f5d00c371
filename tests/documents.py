"""The documents' code blocks: what each holds, the commands in it, and the mark of those that no test runs."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md"]
RUN = ("sh", "python", "yaml")
MARK = re.compile(r"^\s*<!-- not run: (\S.*) -->$")
# Programs that a shell block may call besides the project's own; they cost nothing and change nothing elsewhere.
PROGRAMS = ("grep", "ls", "cat", "cp", "mkdir", "echo", "head", "ffmpeg", "cd")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        path: the document.
        line: where the block begins, counted from 1.
        language: the word after the fence, perhaps empty.
        text: what stands inside.
        reason: why no test runs it; None if one does.
    """

    path: Path
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.path.relative_to(REPOSITORY)}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    begin: int | None = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if begin is None:
            begin = number
            continue
        mark = MARK.match(lines[begin - 1]) if begin else None
        text = "".join(f"{inside}\n" for inside in lines[begin + 1 : number])
        found.append(Block(path, begin + 1, lines[begin].strip(" `"), text, mark.group(1) if mark else None))
        begin = None
    assert begin is None, f"{path}: the block that begins in line {begin and begin + 1} has no end"
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell block, redirections included, comments left out.

    Raises:
        ValueError: a quotation has no end.
    """
    pending = ""
    for line in text.replace("\\\n", " ").splitlines():
        pending += line + "\n"
        lexer = shlex.shlex(pending, posix=True, punctuation_chars="|;&()")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            continue
        pending = ""
        command: list[str] = []
        for word in [*words, ";"]:
            if not set(word) <= set("|;&()"):
                command.append(word)
            elif command:
                yield command
                command = []
    if pending:
        raise ValueError(f"a quotation has no end: {pending}")


def settings(path: Path) -> dict[str, Any]:
    """What a document's YAML blocks configure together, as the overlay ``my.yaml`` of a reader who copied them all.

    docs/configuration.md comes first, because other documents take its data sets for known. Its output root counts
    there alone.
    """
    merged: dict[str, Any] = {}
    for document in dict.fromkeys((REPOSITORY / "docs" / "configuration.md", path)):
        for block in blocks(document):
            if block.language == "yaml" and block.reason is None:
                overlay = yaml.safe_load(block.text)
                if document != path:
                    overlay.pop("output", None)
                merge(merged, overlay)
    return merged


def merge(into: dict[str, Any], overlay: dict[str, Any]) -> None:
    """Lay one configuration over another, key by key, as Snakemake does."""
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def rule_names() -> set[str]:
    """The rules of the project's files."""
    text = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "rules").glob("*.smk"))
    return set(re.findall(r"^(?:rule|checkpoint|use rule \w+ as) (\w+)", text, re.MULTILINE))

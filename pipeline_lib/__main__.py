"""The command line: ``python -m pipeline_lib COMMAND``; each module of ``pipeline_lib.cli`` is one command."""

import argparse
import errno
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

from pipeline_lib import cli
from pipeline_lib.errors import UserError, machine_fault

SHAPES_NO_ARTEFACT = True


def command_names() -> list[str]:
    """The commands, as typed: the modules of ``pipeline_lib.cli`` with hyphens."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(cli.__path__))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (2 for a problem that the user can fix)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Set before torch loads OpenMP, because threads that spin while they wait slow down other jobs on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    names = command_names()
    # Only the chosen command is imported, because torch takes seconds.
    chosen = [words[0]] if words and words[0] in names else names
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib", description="From video to distilled networks.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in chosen:
        module = importlib.import_module(f"pipeline_lib.cli.{name.replace('-', '_')}")
        subparser = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    options = parser.parse_args(words)
    try:
        status: int = options.run(options)
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except Exception as error:
        message = machine_fault(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1


class _LossyFile(io.FileIO):
    """A log that loses lines while its disk is full, because a stage must not end for want of a line of its log."""

    def write(self, data: Any, /) -> int:
        """Write, or drop what finds no room."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            return len(data)


if __name__ == "__main__":
    # Errors go to the log of the rule, which mostly lies on the disk that is full.
    log = io.BufferedWriter(_LossyFile(2, "wb", closefd=False))
    sys.stderr = io.TextIOWrapper(log, sys.stderr.encoding, "backslashreplace", line_buffering=True)
    sys.exit(main())

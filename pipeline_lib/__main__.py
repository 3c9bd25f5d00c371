"""The command line: ``python -m pipeline_lib COMMAND``; each module of ``pipeline_lib.cli`` is one command."""

import argparse
import errno
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipeline_lib import cli
from pipeline_lib.errors import UserError, machine_fault

SHAPES_NO_ARTEFACT = True

# What a path that cannot be opened is to people.
_OF_PATHS = {
    errno.ENOENT: "there is no such file or folder.",
    errno.ENOTDIR: "a part of this path is a file, and not a folder.",
    errno.EISDIR: "this is a folder; a file is wanted.",
    errno.EEXIST: "this exists already, and is not what is wanted here.",
    errno.ENAMETOOLONG: "this name is too long for a file.",
    errno.ELOOP: "this is a link that leads back to itself.",
}


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
    if any("\0" in word for word in words):
        print("error: an argument holds a NUL character, which no path and no name can have.", file=sys.stderr)
        return 2
    if words in (["--version"], ["-V"]):
        return _told(_print_version)
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib", description="From video to distilled networks.")
    parser.add_argument(
        "--version", "-V", action="store_true", help="versions of this, Python, torch, ffmpeg; the device"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in chosen:
        module = importlib.import_module(f"pipeline_lib.cli.{name.replace('-', '_')}")
        subparser = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    options = parser.parse_args(words)
    return _told(lambda: options.run(options))


def _print_version() -> int:
    """What runs here, as a report of a problem needs it."""
    import platform
    from importlib.metadata import version

    import torch

    from pipeline_lib.device import choose_device
    from pipeline_lib.media.ffmpeg import ffmpeg_executable, ffmpeg_version

    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    print(f"pipeline_lib {version('pipeline_lib')}")
    print(f"python {platform.python_version()}, torch {torch.__version__}, snakemake {version('snakemake')}")
    print(f"ffmpeg {ffmpeg_version()} ({ffmpeg_executable()})")
    print(f"device {device.type} ({name})")
    return 0


def _told(work: Callable[[], int]) -> int:
    """Run a command; a problem that the user can fix becomes one message on standard error, and status 1 or 2."""
    try:
        return work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except ValueError as error:
        # Asked for without importing pydantic, which takes longer than most commands.
        pydantic = sys.modules.get("pydantic")
        if pydantic is None or not isinstance(error, pydantic.ValidationError):
            raise
        problems = error.errors(include_url=False, include_input=False)
        shown = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        print(f"error: --specification is not one of {error.title}: {shown}{more}", file=sys.stderr)
        return 2
    except Exception as error:
        message = machine_fault(error)
        if message is None and isinstance(error, OSError) and error.errno in _OF_PATHS and error.filename is not None:
            print(f"error: {error.filename}: {_OF_PATHS[error.errno]}", file=sys.stderr)
            return 2
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

"""Python programs without their start: one process has the imports done, and forks for each program.

``python warm.py serve SOCKET`` waits; ``python warm.py ask SOCKET ARGUMENT …`` stands for ``python ARGUMENT …``: same
folder, variables, standard input and outputs, and exit status. Snakemake and torch take seconds to import, and a
document has many commands.
"""

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

IMPORTS = (
    "snakemake.cli",
    "pipeline_lib.planning.plan",
    "pipeline_lib.training.run",
    "pipeline_lib.evaluation.experiment",
)


def ask(path: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        request = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        return int(connection.recv(8) or b"1")


def serve(path: str) -> None:
    import importlib
    import signal

    for name in IMPORTS:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(16)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """In the child: become the program that was asked for, and tell how it ended."""
    import signal

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += connection.recv(1 << 16)
    arguments, folder, environment = json.loads(request)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        stream = open(number, mode, encoding="utf-8", buffering=1, closefd=False)
        setattr(sys, ("stdin", "stdout", "stderr")[number], stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    status = 1
    try:
        status = run(arguments)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        connection.sendall(str(status).encode())
        os._exit(status)


def run(arguments: list[str]) -> int:
    """``python -m MODULE …`` or ``python FILE …``; returns the exit status."""
    import runpy
    import traceback

    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[2], sys.argv[3:]))

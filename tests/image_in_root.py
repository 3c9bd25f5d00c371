"""Build the image of the Dockerfile without Docker: its steps one after the other in a fresh Debian root, then run it.

    python tests/image_in_root.py ROOT [--volume FOLDER:INSIDE …] [-- ARGUMENTS …]

Debian bookworm with its own Python of the same version, made with debootstrap, stands for the base image. Needs root,
the network, Debian (debootstrap is installed if it is missing) and 10 GB. The folder ROOT stays; --built uses it again.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# What says on this machine how the network is reached. The base image would have its own.
OF_THIS_MACHINE = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile and what follows each, continued lines joined, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def base_root(root: Path, image: str) -> None:
    """Make ``root`` a Debian with Python, as the base image ``python:VERSION-slim-SUITE`` is one."""
    found = re.fullmatch(r"python:(\d+\.\d+)-slim-(\w+)", image)
    assert found is not None, f"FROM {image}: this script knows python:VERSION-slim-SUITE"
    version, suite = found.groups()
    if shutil.which("debootstrap") is None:
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", "debootstrap"], check=True)
    packages = f"python{version},python{version}-dev,python3-pip,python-is-python3,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root)], check=True)
    # Debian's pip refuses to install beside apt; the base image's Python is not Debian's.
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for path in OF_THIS_MACHINE:
        if Path(path).exists():
            shutil.copyfile(path, root / path.lstrip("/"))


class Root:
    """A root folder in which the steps of an image are taken.

    Args:
        folder: of the root.
        context: folder that COPY copies from.
        volumes: what is mounted when the image runs, as ``FOLDER:INSIDE``.
    """

    def __init__(self, folder: Path, context: Path, volumes: Sequence[str] = ()) -> None:
        self.folder, self.context, self.volumes = folder, context, volumes
        self.user, self.place = "root", "/"
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.entry: list[str] = []
        self.command: list[str] = []

    def call(self, command: Sequence[str]) -> None:
        """Run a command inside, as the image's user in its folder.

        Raises:
            CalledProcessError: it fails.
        """
        inside = " ".join(shlex.quote(word) for word in command)
        script = f"cd {shlex.quote(self.place)} && exec {inside}"
        chroot = ["chroot", f"--userspec={self.user}", str(self.folder), "/bin/sh", "-c", script]
        places = [("/proc", "/proc"), ("/sys", "/sys"), ("/dev", "/dev")]
        places += [tuple(volume.split(":", 1)) for volume in self.volumes]  # type: ignore[misc]
        mounts = ""
        for source, inside in places:
            target = self.folder / inside.lstrip("/")
            mounts += f"mount --rbind {shlex.quote(source)} {shlex.quote(str(target))} && "
        # In a mount space of its own, which is gone with the command, also if that is killed.
        whole = mounts + "exec " + " ".join(shlex.quote(word) for word in chroot)
        subprocess.run(["unshare", "--mount", "/bin/sh", "-c", whole], env=self.environment, check=True)

    def take(self, name: str, rest: str) -> None:
        """One step of a Dockerfile."""
        if name == "RUN":
            self.call(["/bin/sh", "-c", rest])
        elif name == "COPY":
            *sources, target = shlex.split(rest)
            place = self.folder / target.lstrip("/")
            for source in sources:
                path = self.context / source
                if path.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(path, place, dirs_exist_ok=True, ignore=ignored)
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, place)
        elif name == "ENV":
            self.environment |= dict(word.split("=", 1) for word in shlex.split(rest))
        elif name == "WORKDIR":
            self.place = rest
        elif name == "USER":
            self.user = rest
        elif name == "ENTRYPOINT":
            self.entry = json.loads(rest)
        elif name == "CMD":
            self.command = json.loads(rest)
        else:
            raise AssertionError(f"{name} {rest}: this script does not know the instruction")


def build(image: Root, built: bool = False) -> None:
    """Take every step of the Dockerfile; if the root is built already, only those that say how it runs."""
    for name, rest in instructions((image.context / "Dockerfile").read_text(encoding="utf-8")):
        if built and name in ("FROM", "RUN", "COPY"):
            continue
        started = time.monotonic()
        print(f"=== {name} {rest}", flush=True)
        if name == "FROM":
            base_root(image.folder, rest)
        else:
            image.take(name, rest)
        print(f"=== {time.monotonic() - started:.0f} s", flush=True)


def run(image: Root, arguments: Sequence[str]) -> None:
    """Run the image as its own user, with its CMD if there are no arguments."""
    command = [*image.entry, *(arguments or image.command)]
    print(f"=== as user {image.user}: {' '.join(command)}", flush=True)
    image.call(command)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder that becomes the root")
    parser.add_argument("--context", type=Path, default=REPOSITORY, help="the clone (default: this one)")
    parser.add_argument("--volume", action="append", default=[], metavar="FOLDER:INSIDE", help="mounted when it runs")
    parser.add_argument("--built", action="store_true", help="ROOT was built before: only run it")
    # What follows -- is what the image is run with.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end])
    if os.geteuid() != 0:
        parser.error("chroot and mount need root")
    if options.root.exists() != options.built:
        parser.error(f"{options.root} {'exists: delete it, or --built' if options.root.exists() else 'does not exist'}")
    image = Root(options.root.resolve(), options.context)
    build(image, options.built)
    image.volumes = options.volume
    run(image, sys.argv[end + 1 :])
    return 0


if __name__ == "__main__":
    sys.exit(main())

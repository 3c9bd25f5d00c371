"""Every block of the documents that is not marked runs, as printed, on a small finished demo.

What stands for the reader's machine: the demo is the small project's; ``my.yaml`` holds what the document shows, after
docs/configuration.md's; ``/data`` and ``/scratch`` lie in a temporary folder and have the lists and folders that
my.yaml names; ``my_video.mp4`` and ``videos/CLASS/…`` are generated videos. Snakemake plans (``--dry-run``) unless the
document asks for something that trains nothing, and make only prints what it would do.
"""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import documents
import pytest
import yaml
from documents import DOCUMENTS, Block, blocks, settings
from small_project import Project, wait_for

WARM = Path(__file__).with_name("warm.py")
# What makes Snakemake print or touch and train nothing, and the targets that take a second to make.
CHEAP = ("--dry-run", "--touch", "--unlock", "--lint", "--list", "--rulegraph", "--dag", "summary.json")
RUNNABLE = [
    path for path in DOCUMENTS if any(block.reason is None and block.language != "yaml" for block in blocks(path))
]
SNAKEMAKE = """#!/bin/bash
for word in "$@"; do case "$word" in {cheap}) exec {ask} -m snakemake "$@";; esac; done
exec {ask} -m snakemake --dry-run "$@"
"""
PYTHON = """#!/bin/bash
case "$1" in -m|*.py) exec {ask} "$@";; *) exec {python} "$@";; esac
"""
KINETICS = "label,youtube_id,time_start,time_end,split\n"


@dataclass
class Reader:
    """A reader's folder: the project with its finished demo, and what the documents take for given."""

    project: Project
    data: Path
    programs: Path

    def printed(self, text: str) -> str:
        """A block's text, with the two folders that only a cluster has."""
        return text.replace("/data/", f"{self.data}/data/").replace("/scratch/", f"{self.data}/scratch/")

    def run(self, block: Block) -> str | None:
        """Run a block; what went wrong, if anything did."""
        text = self.printed(block.text)
        if block.language == "python":
            file = self.programs / f"block_{block.path.stem}_{block.line}.py"
            file.write_text(text, encoding="utf-8")
            text = f"python {file}"
        environment = os.environ | {
            "PATH": f"{self.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.project.folder),
        }
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-x", "-c", text],
            cwd=self.project.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        if done.returncode:
            return f"{block} ended with status {done.returncode}:\n{block.text}\n{done.stdout[-3000:]}"
        return None


def videos_of(project: Project) -> list[Path]:
    return sorted((project.folder / "data").rglob("*.mp4"))


def make_data(reader: Reader, overlay: dict[str, Any]) -> None:
    """The lists and folders that an overlay names, with two videos in Kinetics' folders."""
    clips = videos_of(reader.project)
    for name, dataset in overlay.get("datasets", {}).items():
        for folder in [*dataset.get("videos", []), *dataset.get("replacements", [])]:
            place = Path(reader.printed(folder))
            place.mkdir(parents=True, exist_ok=True)
            if dataset.get("format") == "folder":
                for label, clip in zip(itertools.cycle(("left", "right")), clips[:4], strict=False):
                    (place / label).mkdir(exist_ok=True)
                    shutil.copyfile(clip, place / label / clip.name)
        for subset, file in dataset.get("annotations", {}).items():
            place = Path(reader.printed(file))
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.suffix:
                place.mkdir(exist_ok=True)
            elif name.startswith("kinetics") or dataset.get("format") == "kinetics":
                names = {"left": f"{subset}_left_", "right": f"{subset}_right", "gone": f"{subset}_gone_"}
                rows = [f"{'right' if word == 'right' else 'left'},{names[word]},0,10,{subset}\n" for word in names]
                place.write_text(KINETICS + "".join(rows), encoding="utf-8")
                # Of the third there is no file, so that the manifest has a reason to show.
                for word, clip in zip(("left", "right"), clips, strict=False):
                    shutil.copyfile(
                        clip, Path(reader.printed(dataset["videos"][0])) / f"{names[word]}_000000_000010.mp4"
                    )
            else:
                place.write_text("", encoding="utf-8")
        for key, line in (("ids", "train_left_"), ("classes", "left")):
            if file := (dataset.get("filter") or {}).get(key):
                place = reader.project.folder / reader.printed(file)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(line + "\n", encoding="utf-8")
    for source in overlay.get("downloads", {}).values():
        urls = Path(reader.printed(source["urls"]))
        urls.parent.mkdir(parents=True, exist_ok=True)
        urls.write_text("https://localhost:1/part_0.tar.gz\n", encoding="utf-8")


@pytest.fixture(scope="module")
def reader(finished: Project, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The small finished project as the reader's, and a process that runs Python programs without their start."""
    folder = tmp_path_factory.mktemp("reader")
    project = finished.copy(folder / "project")
    # The small sizes belong to the project itself, since a document's command names no overlay for them.
    configuration = yaml.safe_load((project.folder / "config.yaml").read_text(encoding="utf-8"))
    small = yaml.safe_load((project.folder / "small.yaml").read_text(encoding="utf-8"))
    documents.merge(configuration, small)
    # Planning a few hundred shards takes seconds and says nothing more.
    for dataset in configuration["datasets"].values():
        dataset["num_shards"] = 2
    (project.folder / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
    (project.folder / "small.yaml").unlink()
    for name in ("docs", "benchmarks", "tests"):
        (project.folder / name).symlink_to(repository / name)
    for name in ("Makefile", "pyproject.toml", "README.md"):
        shutil.copy2(repository / name, project.folder / name)
    activate = project.folder / ".venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    clips = videos_of(project)
    shutil.copyfile(clips[0], project.folder / "my_video.mp4")
    for number, clip in enumerate(clips[:4]):
        place = project.folder / "videos" / ("left", "right")[number % 2] / clip.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, place)
    programs = folder / "bin"
    programs.mkdir()
    # A short path, because a socket's has at most 107 bytes.
    socket = Path("/tmp") / f"warm_{os.getpid()}"
    ask = f"{sys.executable} -I -S {WARM} ask {socket}"
    cheap = "|".join(f"*{word}*" for word in CHEAP)
    scripts = {
        "snakemake": SNAKEMAKE.format(ask=ask, cheap=cheap),
        "python": PYTHON.format(ask=ask, python=sys.executable),
        "make": f'#!/bin/bash\nexec {shutil.which("make")} --dry-run "$@"\n',
    }
    for name, script in scripts.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    reader = Reader(project, folder, programs)
    for path in DOCUMENTS:
        make_data(reader, settings(path))
    environment = os.environ | {"PYTHONPATH": str(project.folder), "OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen(
        [sys.executable, str(WARM), "serve", str(socket)], cwd=project.folder, env=environment
    ) as warm:
        wait_for(socket.exists)
        yield reader
        warm.terminate()
    socket.unlink()


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.name)
def test_a_documents_commands_run_as_printed(path: Path, reader: Reader) -> None:
    mine = reader.printed(yaml.safe_dump(settings(path), sort_keys=False, allow_unicode=True))
    (reader.project.folder / "my.yaml").write_text(mine, encoding="utf-8")
    runnable = [block for block in blocks(path) if block.reason is None and block.language != "yaml"]
    problems = [problem for block in runnable if (problem := reader.run(block))]
    assert not problems, "\n\n".join(problems)

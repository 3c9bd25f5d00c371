"""Seconds and memory of planning the main job (``snakemake -n distill_k400``) on manifests as large as Kinetics'.

The manifests are built from synthetic lists with probing switched off (``probe: none`` trusts the list), by Snakemake
itself, so that planning sees a built manifest and every shard. The reference is the same plan over 1,000 clips: what
planning costs must follow from the number of shards and not from that of videos.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from common import emit, say
from manifest import write_lists

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = ("Snakefile", "config.yaml", "rules", "workflow", "profiles", "envs", "pipeline_lib")
SUMMARY = "output/manifests/kinetics400/summary.json"


def project(folder: Path, num_clips: int, num_shards: int) -> Path:
    """A copy of the project whose Kinetics-400 is a synthetic list, its manifest built."""
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    lists = write_lists(folder, num_clips)
    dataset = {"annotations": lists, "probe": "none", "num_shards": num_shards}
    (folder / "my.yaml").write_text(yaml.safe_dump({"datasets": {"kinetics400": dataset}}))
    subprocess.run(snakemake(SUMMARY), cwd=folder, check=True, capture_output=True)
    return folder


def snakemake(*arguments: str) -> list[str]:
    """The command; the default profile is the project's."""
    return [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "my.yaml", "--", *arguments]


def plan(folder: Path) -> dict[str, float]:
    """Plan once: jobs, seconds, peak memory in MiB of the process."""
    command = snakemake("distill_k400")
    command[3:3] = ["--dry-run", "--quiet", "rules"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"planning failed:\n{text}")
    (total,) = set(re.findall(r"^total\s+(\d+)", text, re.MULTILINE))
    return {"jobs": int(total), "seconds": round(seconds, 2), "peak_memory_mib": round(usage.ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[240_000, 500_000])
    parser.add_argument("--shards", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    figures: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for clips in (1_000, *options.clips):
            folder = project(Path(name) / str(clips), clips, options.shards)
            figures[clips] = min((plan(folder) for _ in range(options.repeats)), key=lambda figure: figure["seconds"])
            say(f"{clips} clips: {figures[clips]}")
            shutil.rmtree(folder)
    largest = figures[max(options.clips)]
    emit(
        "planning",
        largest["seconds"],
        "s",
        figures[1_000]["seconds"],
        higher_is_better=False,
        conditions={
            "reference": "the same plan over 1,000 clips",
            "shards": options.shards,
            "clips": {str(clips): figure for clips, figure in figures.items()},
            "goal_seconds": 15,
            "goal_memory_mib": 500,
        },
    )


if __name__ == "__main__":
    main()

"""Seconds to build the manifest of a Kinetics-sized list with probing switched off, and peak memory.

The reference is reading the same CSVs with ``csv.DictReader`` and writing the ids, labels and intervals to Parquet:
what no manifest can do without.
"""

import argparse
import csv
import resource
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from common import emit, say

from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.specification import ManifestSpecification
from pipeline_lib.manifests.build import build_manifest

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def youtube_id(number: int) -> str:
    """An id of 11 characters that looks like YouTube's."""
    value = (number * 0x9E3779B97F4A7C15) % 64**11
    return "".join(_LETTERS[value // 64**place % 64] for place in range(11))


def write_lists(folder: Path, num_clips: int) -> dict[str, str | None]:
    """Synthetic train and validation lists in the official columns."""
    paths: dict[str, str | None] = {}
    for name, numbers in (
        ("train", range(num_clips * 12 // 13)),
        ("validation", range(num_clips * 12 // 13, num_clips)),
    ):
        path = folder / f"{name}.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
            for i in numbers:
                writer.writerow([f"class {i % 400:03d}", youtube_id(i), i % 290, i % 290 + 10, name, i % 2])
        paths[name] = str(path)
    return paths


def reference(paths: dict[str, str | None], output: Path) -> float:
    """Seconds to read the lists and write their columns as they are."""
    start = time.perf_counter()
    columns: dict[str, list[str]] = {name: [] for name in ("youtube_id", "label", "time_start", "time_end")}
    for path in paths.values():
        with open(str(path), encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, column in columns.items():
                    column.append(row[name])
    pq.write_table(pa.table(columns), output)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=500_000)
    parser.add_argument("--shards", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_lists(folder, options.clips)
        say(f"{options.clips} rows written")
        baseline = reference(paths, folder / "reference.parquet")
        dataset = Dataset(format="kinetics", annotations=paths, probe="none", num_shards=options.shards)
        start = time.perf_counter()
        summary = build_manifest(ManifestSpecification(name="synthetic", dataset=dataset), folder / "manifest", 1)
        seconds = time.perf_counter() - start
        assert summary["status"] == {"accepted": options.clips}
    emit(
        "manifest_without_probing",
        round(seconds, 2),
        "s",
        round(baseline, 2),
        higher_is_better=False,
        conditions={
            "reference": "reading the lists with csv.DictReader and writing four columns",
            "clips": options.clips,
            "shards": options.shards,
            "goal_seconds": 30,
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        },
    )


if __name__ == "__main__":
    main()

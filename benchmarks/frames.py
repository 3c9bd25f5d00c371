"""Frames per second of the frames stage against ffmpeg decoding and scaling the same files to null.

The reference is the fastest of three ways to run ``ffmpeg -i FILE -vf scale… -f null -`` on as many cores: one process
a core with one thread each, the same with ffmpeg's own choice of threads, and one process after the other.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import emit, say

from pipeline_lib.configuration.data import FrameFormat
from pipeline_lib.configuration.specification import FramesSpecification
from pipeline_lib.manifests.shard_lists import write_shard_list
from pipeline_lib.media.ffmpeg import ffmpeg_executable, ffmpeg_version
from pipeline_lib.media.frames_stage import extract_frames
from pipeline_lib.media.shards import Shard

MEDIA = Path(os.environ.get("PIPELINE_MEDIA", Path(__file__).resolve().parent.parent.parent / "shared" / "media"))


def find_files(folder: Path) -> list[Path]:
    """The whole clips, or every mp4 or mkv of another folder."""
    clips = folder / "clips"
    return sorted(f for f in (clips if clips.is_dir() else folder).rglob("*") if f.suffix in (".mp4", ".mkv", ".webm"))


def reference(files: list[Path], side: int, workers: int, threads: int | None) -> float:
    """Seconds of ffmpeg decoding and scaling all files to null."""
    width = f"if(gt(min(iw,ih),{side}),if(gt(iw,ih),round(iw*{side}/ih),{side}),iw)"
    height = f"if(gt(min(iw,ih),{side}),if(gt(iw,ih),{side},round(ih*{side}/iw)),ih)"

    def decode(file: Path) -> None:
        limits = [] if threads is None else ["-threads", str(threads), "-filter_threads", str(threads)]
        scale = f"scale=w='{width}':h='{height}',format=yuv420p"
        command = [ffmpeg_executable(), "-nostdin", "-v", "error", *limits, "-i", str(file), "-an", "-vf", scale]
        subprocess.run([*command, "-f", "null", "-"], check=True)

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as executor:
        list(executor.map(decode, files))
    return time.perf_counter() - start


def stage(shard_list: Path, specification: FramesSpecification, workers: int) -> tuple[float, int]:
    """Seconds and frames of the frames stage."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "000.h5"
        start = time.perf_counter()
        extract_frames(specification, shard_list, output, workers)
        seconds = time.perf_counter() - start
        return seconds, sum(video.num_frames for video in Shard(output).videos)


def enlarge(files: list[Path], folder: Path) -> list[Path]:
    """The same clips at a short side of 720, as most of Kinetics comes from YouTube: H.264, x264's default quality."""
    large = []
    for file in files:
        target = folder / f"{file.stem}_720.mp4"
        scale = "scale=w='if(gt(iw,ih),-2,720)':h='if(gt(iw,ih),720,-2)'"
        command = [ffmpeg_executable(), "-nostdin", "-v", "error", "-i", str(file), "-an", "-vf", scale]
        subprocess.run([*command, "-c:v", "libx264", "-preset", "veryfast", str(target)], check=True)
        large.append(target)
    return large


def compare(files: list[Path], specification: FramesSpecification, workers: int, repeats: int) -> dict[str, Any]:
    """Frames/s of the stage and of each way to run the reference; the best of ``repeats`` rounds of each."""
    side = specification.frames.short_side
    ways: dict[str, Callable[[], float]] = {
        "a process per core, one thread each": lambda: reference(files, side, workers, 1),
        "a process per core": lambda: reference(files, side, workers, None),
        "one process": lambda: reference(files, side, 1, None),
    }
    best = dict.fromkeys(ways, float("inf"))
    ours, num_frames = float("inf"), 0
    with tempfile.TemporaryDirectory() as folder:
        shard_list = Path(folder) / "000.json"
        videos = [{"id": f"{index:04d}", "path": str(file), "digest": ""} for index, file in enumerate(files)]
        write_shard_list(shard_list, "benchmark", "000", videos)
        # Taken in turns, so that a disturbance hits all of them alike; the best of each counts.
        for repeat in range(repeats):
            for way, run in ways.items():
                best[way] = min(best[way], run())
            seconds, num_frames = stage(shard_list, specification, workers)
            ours = min(ours, seconds)
            fastest = min(best.values())
            say(f"round {repeat + 1}: stage {num_frames / ours:.0f}, reference {num_frames / fastest:.0f} frames/s")
    fastest = min(best.values())
    return {
        "frames_per_second": round(num_frames / ours, 1),
        "reference": round(num_frames / fastest, 1),
        "ratio": round(fastest / ours, 4),
        "references": {way: round(num_frames / seconds, 1) for way, seconds in best.items()},
        "files": len(files),
        "frames": num_frames,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--copies", type=int, default=12, help="each file is taken so many times")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    files = find_files(options.media)
    if not files:
        parser.error(f"no videos in {options.media}; set PIPELINE_MEDIA or --media")
    specification = FramesSpecification(
        dataset="benchmark",
        frame_format="benchmark",
        frames=FrameFormat(short_side=options.short_side),
        on_decode_error="reject",
    )
    say("the files as they are")
    plain = compare(files * options.copies, specification, options.workers, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        say("the same clips at a short side of 720")
        large = enlarge(files, Path(folder))
        at_720 = compare(large * max(1, options.copies // 4), specification, options.workers, options.repeats)
    emit(
        "frames_stage",
        plain["frames_per_second"],
        "frames/s",
        plain["reference"],
        conditions={
            "reference": "ffmpeg decoding and scaling the same files to null, the fastest way",
            "goal_ratio": 0.7,
            "as_they_are": plain,
            "at_short_side_720": at_720,
            "short_side": options.short_side,
            "jpeg_quality": specification.frames.jpeg_quality,
            "workers": options.workers,
            "repeats": options.repeats,
            "ffmpeg": ffmpeg_version(),
        },
    )


if __name__ == "__main__":
    main()

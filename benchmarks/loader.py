"""Clips per second and core from packed shards, against decoding the same clips from mp4 (torchcodec, PyAV).

Real clips are brought to a short side of 256 once, as mp4 (H.264) and as a packed shard; then the same random clips of
64 frames are read from each, on one core. The mp4s are already small, which favours them: users decode larger ones.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import simplejpeg
import torch
from common import emit, say

from pipeline_lib.clips.decoding import decode_frames, read_encoded
from pipeline_lib.clips.sampling import ClipRequest, latest_start
from pipeline_lib.media.shards import Shard, ShardPart

MEDIA = Path(os.environ.get("PIPELINE_MEDIA", Path(__file__).resolve().parents[2] / "shared" / "media"))
NUM_FRAMES, SHORT_SIDE, CROP = 64, 256, 224


def small_mp4(source: Path, target: Path) -> None:
    scale = f"scale='if(lt(iw,ih),{SHORT_SIDE},-2)':'if(lt(iw,ih),-2,{SHORT_SIDE})'"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(source), "-an", "-vf", scale]
    subprocess.run([*command, "-c:v", "libx264", "-crf", "23", "-pix_fmt", "yuv420p", str(target)], check=True)


def pack(videos: list[Path], path: Path) -> None:
    with ShardPart(path, "benchmark") as part:
        for video in videos:
            with av.open(str(video)) as container:
                images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            frames = [simplejpeg.encode_jpeg(np.ascontiguousarray(image), 75, "RGB", "420") for image in images]
            part.append(video.stem, frames, *images[0].shape[:2], 25.0)
        part.finish({}, sorted(video.stem for video in videos))


def from_pyav(path: Path, start: int) -> np.ndarray:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate, base = stream.average_rate, stream.time_base
        container.seek(int(start / rate / base), stream=stream)
        frames = []
        for frame in container.decode(stream):
            if round(float(frame.pts * base * rate)) >= start:
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == NUM_FRAMES:
                    break
    return np.stack(frames)


def lend_ffmpeg() -> None:
    """Start anew with PyAV's own FFmpeg libraries under their plain names: torchcodec brings none."""
    folder = Path(av.__file__).resolve().parent.parent / "av.libs"
    if "LOADER_LIBRARIES" in os.environ or not folder.is_dir():
        return
    lent = tempfile.mkdtemp(prefix="ffmpeg-libraries-")
    for library in folder.glob("lib*.so*"):
        stem, _, version = library.name.partition(".so")
        plain = f"{stem.rpartition('-')[0] or stem}.so.{version.strip('.').split('.')[0]}"
        if not (Path(lent) / plain).exists():
            (Path(lent) / plain).symlink_to(library)
    searched = os.pathsep.join(filter(None, [lent, str(folder), os.environ.get("LD_LIBRARY_PATH", "")]))
    environment = {**os.environ, "LOADER_LIBRARIES": lent, "LD_LIBRARY_PATH": searched}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def from_torchcodec(path: Path, start: int) -> torch.Tensor:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
    return decoder.get_frames_in_range(start, start + NUM_FRAMES).data


def rate(read: Callable[[int, int], object], clips: list[tuple[int, int]], seconds: float) -> float:
    """Clips per second of processor time, all threads; the first pass warms the page cache.

    Processor time is what "per core" means, and does not suffer when other processes share the machine.
    """
    for clip in clips[:4]:
        read(*clip)
    begin, count = time.process_time(), 0
    while time.process_time() - begin < seconds:
        read(*clips[count % len(clips)])
        count += 1
    return count / (time.process_time() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time per reader")
    options = parser.parse_args()
    lend_ffmpeg()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sources = sorted(path for path in (MEDIA / "clips").iterdir() if path.suffix in (".mp4", ".mkv", ".webm"))
        videos = []
        for source in sources:
            videos.append(Path(folder) / f"{source.stem}.mp4")
            small_mp4(source, videos[-1])
        shard_path = Path(folder) / "000.h5"
        pack(videos, shard_path)
        table = {video.id: video for video in Shard(shard_path).videos}
        videos = [video for video in videos if table[video.stem].num_frames > NUM_FRAMES + 8]
        shard = Shard(shard_path)
        random = np.random.default_rng(0)
        clips = []
        for _ in range(64):
            number = int(random.integers(len(videos)))
            # The last frames are left out: readers disagree about how many a file has.
            clips.append(
                (number, int(random.integers(latest_start(NUM_FRAMES, 1, table[videos[number].stem].num_frames - 8))))
            )
        out = np.empty((NUM_FRAMES, CROP, CROP, 3), dtype=np.uint8)

        def packed(number: int, start: int) -> None:
            video = table[videos[number].stem]
            request = ClipRequest(0, start, NUM_FRAMES, CROP, SHORT_SIDE)
            decode_frames(read_encoded(shard, video.first_frame, video.num_frames, request), request, out, "clip")

        readers: dict[str, Callable[[int, int], object]] = {
            "packed shard": packed,
            "torchcodec": lambda number, start: from_torchcodec(videos[number], start),
            "PyAV": lambda number, start: from_pyav(videos[number], start),
        }
        rates = {}
        for name, read in readers.items():
            try:
                rates[name] = rate(read, clips, options.seconds)
            except (ImportError, OSError, RuntimeError) as error:
                if name != "torchcodec":
                    raise
                say(f"torchcodec cannot be used here: {str(error).strip().splitlines()[0]}")
                continue
            say(f"{name}: {rates[name]:.2f} clips/s on one core")
    conditions = {
        "frames": NUM_FRAMES,
        "short_side": SHORT_SIDE,
        "clips_per_second": {name: round(value, 2) for name, value in rates.items()},
        "videos": len(videos),
    }
    reference = max(value for name, value in rates.items() if name != "packed shard")
    emit(
        "loader_clips_per_second_and_core",
        round(rates["packed shard"], 2),
        "clips/s",
        round(reference, 2),
        conditions=conditions,
    )


if __name__ == "__main__":
    try:
        main()
    finally:
        if "LOADER_LIBRARIES" in os.environ:
            shutil.rmtree(os.environ["LOADER_LIBRARIES"], ignore_errors=True)

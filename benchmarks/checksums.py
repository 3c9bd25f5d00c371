"""What checksums cost beside the work that they stand beside.

A stored frame is checked by its CRC-32 before it is decoded; a part is written through to the disk every ten seconds.
"""

import argparse
import hashlib
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import simplejpeg
from common import emit, say

from pipeline_lib.artefacts import journal
from pipeline_lib.media.shards import ShardPart

MEDIA = Path(os.environ.get("PIPELINE_MEDIA", Path(__file__).resolve().parent.parent.parent / "shared" / "media"))
SIDES = (64, 256)


def jpegs(clip: Path, side: int, count: int) -> list[bytes]:
    """The first frames of a clip at a short side, as the frames stage stores them."""
    found = []
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            scale = side / min(frame.width, frame.height)
            small = frame.reformat(round(frame.width * scale), round(frame.height * scale), "rgb24").to_ndarray()
            found.append(simplejpeg.encode_jpeg(small, 75, "RGB", "420"))
            if len(found) == count:
                break
    return found


def microseconds(frames: Sequence[bytes], work: Callable[[bytes], object], repeats: int) -> float:
    """Of one frame, the best of some rounds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for frame in frames:
            work(frame)
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / len(frames)


def append_seconds(frames: Sequence[bytes], num_videos: int, sync_seconds: float) -> float:
    """To store videos in a part that is written through at this interval."""
    journal.SYNC_SECONDS = sync_seconds
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, ShardPart(Path(folder) / "a.h5", "origin") as part:
        start = time.perf_counter()
        for number in range(num_videos):
            part.append(str(number), frames, 256, 340, 25.0)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    clip = MEDIA / "clips" / "abseiling.mp4"
    costs = {}
    for side in SIDES:
        frames = jpegs(clip, side, 120)

        def decode(frame: bytes) -> object:
            return simplejpeg.decode_jpeg(frame, colorspace="RGB", fastdct=False, fastupsample=False)

        found = {
            "decode": microseconds(frames, decode, options.repeats),
            "crc32": microseconds(frames, zlib.crc32, options.repeats),
            "sha256": microseconds(frames, lambda frame: hashlib.sha256(frame).digest(), options.repeats),
        }
        costs[f"short side {side}"] = {name: round(value, 2) for name, value in found.items()}
        say(f"short side {side}, microseconds a frame: {costs[f'short side {side}']}")
    seconds = {name: append_seconds(frames, 200, value) for name, value in (("never", 1e9), ("every video", 0.0))}
    say(f"200 videos of 120 frames appended, seconds: {seconds}")
    value = costs["short side 256"]
    emit(
        "checksum_share_of_decode",
        round(value["crc32"] / value["decode"], 5),
        "of the time of decoding",
        round(value["sha256"] / value["decode"], 5),
        higher_is_better=False,
        conditions={
            "reference": "SHA-256 in place of CRC-32",
            "microseconds_a_frame": costs,
            "milliseconds_of_a_sync": round(1e3 * (seconds["every video"] - seconds["never"]) / 200, 2),
            "milliseconds_to_append_120_frames": round(1e3 * seconds["never"] / 200, 2),
        },
    )


if __name__ == "__main__":
    main()

"""The motion stage: makes from a shard of frames a shard of motion with the same ids, order and rows.

Threads decode frames and encode JPEGs while the device computes. If the other frame of a row lies outside the video,
the row repeats its nearest neighbour; the record's parameters say which rows do (``boundary``).
"""

import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any

import numpy as np
import simplejpeg
import torch

from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import content_digest, distribution_versions, torch_versions
from pipeline_lib.artefacts.sealing import DamageError
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.configuration.specification import MotionSpecification
from pipeline_lib.device import choose_device
from pipeline_lib.errors import UserError
from pipeline_lib.flow.code import motion_modules
from pipeline_lib.flow.methods import MotionMethod, create_method
from pipeline_lib.flow.quantisation import encode_image, stack_channels
from pipeline_lib.media.shards import Shard, ShardPart, ShardVideo

# Decoded chunks that wait for the device, and videos whose JPEGs may still be encoding.
_CHUNKS_AHEAD = 2
_VIDEOS_BEHIND = 4
# Seconds to wait for device memory that another process holds, before the job fails.
_WAITS = (15, 30, 60, 120)


@dataclass
class _Chunk:
    """Consecutive decoded frames of one video, and whether they are its last."""

    video: ShardVideo
    frames: np.ndarray
    last: bool
    error: str | None = None


@dataclass
class _Pending:
    """A video whose rows are being encoded."""

    video: ShardVideo
    rows: list[Future[bytes]] = field(default_factory=list)
    error: str | None = None


@dataclass
class StageFigures:
    """How the time of the thread that feeds the device was spent, seconds."""

    pairs: int = 0
    seconds: float = 0.0
    waiting_for_frames: float = 0.0
    device: float = 0.0
    waiting_for_jpegs: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Plain data for the sidecar: pairs/s and what bound the job."""
        shares = {
            "decode": self.waiting_for_frames,
            "device": self.device,
            "encode": self.waiting_for_jpegs,
        }
        return {
            "pairs": self.pairs,
            "pairs_per_second": round(self.pairs / self.seconds, 2) if self.seconds else 0.0,
            "bound_by": max(shares, key=lambda name: shares[name]),
            "seconds": {name: round(value, 3) for name, value in shares.items()} | {"total": round(self.seconds, 3)},
        }


def decode_frame(jpeg: bytes | memoryview, colour: bool) -> np.ndarray:
    """One stored frame: uint8 (H, W, 3) RGB, or (H, W) luma."""
    if colour:
        rgb: np.ndarray = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=False, fastupsample=False)
        return rgb
    grey: np.ndarray = simplejpeg.decode_jpeg(jpeg, colorspace="GRAY", fastdct=False)[..., 0]
    return grey


def _chunks(
    shard: Shard, positions: list[int], method: MotionMethod, gap: int, pool: ThreadPoolExecutor
) -> Iterator[_Chunk]:
    """Decode the videos at ``positions`` of a shard, in pieces that overlap by the gap."""
    reach = abs(gap)
    for position in positions:
        video = shard.videos[position]
        empty = np.empty((0, video.height, video.width), np.uint8)
        num_pairs = video.num_frames - reach
        if num_pairs < 1:
            reason = f"{video.num_frames} frames; a gap of {gap} needs {reach + 1}"
            yield _Chunk(video, empty, last=True, error=reason)
            continue
        size = method.pairs_per_call(video.height, video.width)
        for start in range(0, num_pairs, size):
            stop = min(start + size, num_pairs)
            jpegs = shard.read(position, start, stop + reach)
            try:
                frames = np.stack(list(pool.map(lambda jpeg: decode_frame(jpeg, method.colour), jpegs)))
            except ValueError as error:
                # Damage of the shard says nothing about the video, so the video is not rejected.
                raise DamageError(shard.path, f"video {video.id}: a frame cannot be decoded ({error})") from error
            yield _Chunk(video, frames, last=stop == num_pairs)


def _ahead(chunks: Iterator[_Chunk], stop: Event) -> Iterator[_Chunk]:
    """Run a generator of chunks in another thread, a few chunks ahead of its consumer."""
    queue: Queue[_Chunk | BaseException | None] = Queue(_CHUNKS_AHEAD)

    def produce() -> None:
        try:
            for chunk in chunks:
                queue.put(chunk)
                if stop.is_set():
                    return
            queue.put(None)
        except BaseException as error:  # the consumer raises it
            queue.put(error)

    Thread(target=produce, daemon=True).start()
    while (item := queue.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def motion_images(method: MotionMethod, frames: np.ndarray, gap: int) -> np.ndarray:
    """Quantised motion of consecutive frames as grey images; if device memory runs out, the call is halved.

    Args:
        method: computes the motion.
        frames: uint8 (N, H, W) or (N, H, W, 3).
        gap: from frame t to t + gap.

    Returns:
        uint8 (N − abs(gap), C · padded(H), W).

    Raises:
        ValueError: the frames cannot be used, or the motion is not finite.
        torch.OutOfMemoryError: not even one pair fits the device.
    """
    try:
        return stack_channels(method.quantisation.quantise(method.motion(frames, gap))).cpu().numpy()
    except torch.OutOfMemoryError:
        num_pairs = len(frames) - abs(gap)
        if num_pairs == 1:
            raise
    # This is outside the handler, because the exception's frames keep the failed call's tensors alive.
    torch.cuda.empty_cache()
    half = num_pairs // 2
    print(f"out of device memory with {num_pairs} pairs: going on with {half}", file=sys.stderr, flush=True)
    return np.concatenate(
        [motion_images(method, frames[: half + abs(gap)], gap), motion_images(method, frames[half:], gap)]
    )


def _when_there_is_room(method: MotionMethod, name: str, frames: np.ndarray, gap: int) -> np.ndarray:
    """``motion_images``; waits if not even one pair finds room, because another process may hold the card.

    Raises:
        UserError: there still is no room. No video is rejected for that: the job fails, and continues when retried.
    """
    for seconds in (*_WAITS, None):
        try:
            return motion_images(method, frames, gap)
        except torch.OutOfMemoryError as error:
            reason = str(error).split("\n")[0]
        torch.cuda.empty_cache()
        if seconds is not None:
            print(f"no room on the device for one pair: waiting {seconds} s", file=sys.stderr, flush=True)
            time.sleep(seconds)
    height, width = frames.shape[1:3]
    raise UserError(
        f"{name}: the device has no room for one pair of {width}×{height} px ({reason}). Another process may "
        "hold its memory (nvidia-smi shows which). The finished videos are kept, and the same command goes on."
    )


def _finish_video(part: ShardPart, pending: _Pending, gap: int, progress: Progress) -> None:
    """Store a video, with its boundary rows repeated, or reject it."""
    rows = [row.result() for row in pending.rows]
    video = pending.video
    if pending.error is not None:
        part.reject(video.id, pending.error)
    else:
        repeated = [rows[-1] if gap > 0 else rows[0]] * abs(gap)
        rows = rows + repeated if gap > 0 else repeated + rows
        part.append(video.id, rows, video.height, video.width, video.frames_per_second)
    progress.advance()


def _estimate(figures: StageFigures, total_pairs: int, wanted: str, method: str) -> None:
    """Say once, after the first pairs on a CPU, how long the job will take."""
    left = (total_pairs - figures.pairs) * figures.device / max(figures.pairs, 1)
    if wanted == "cuda" or left > 600:
        print(
            f"{method} on the CPU: {figures.pairs / max(figures.device, 1e-9):.2f} pairs/s, about {left / 60:.0f} min "
            f"for the {total_pairs - figures.pairs} pairs left in this shard (a GPU is many times faster)",
            file=sys.stderr,
            flush=True,
        )


def extract_motion(
    specification: MotionSpecification,
    frames: Path,
    output: Path,
    num_threads: int,
    maximum_loss_share: float = 1.0,
) -> dict[str, Any]:
    """Make the motion shard of a frames shard; continues after the videos that an interrupted run had finished.

    Args:
        specification: the motion kind and the device.
        frames: the frames shard.
        output: path of the motion shard.
        num_threads: threads for computing on the CPU, and for decoding and encoding.
        maximum_loss_share: share of the shard's videos that may fail, in [0, 1]. It is not part of the specification,
            because it changes no flow.

    Returns:
        Figures of this run: pairs, pairs per second, what bound it; none if the shard was finished before.

    Raises:
        UserError: too many videos fail, wrong parameters, missing weights or a missing frames shard.
        DamageError: the frames shard is damaged.
    """
    kind = specification.motion_kind
    device = choose_device(specification.device, without_gpu="warn")
    with Stage("extract_motion", motion_modules(kind), output) as stage:
        method = create_method(kind, device, num_threads)
        shard = Shard(frames)
        gap = kind.gap
        if stage.is_finished(
            {
                "motion": kind.model_dump(),
                "method_parameters": method.parameters,
                "quantisation": method.quantisation.attributes(),
                "gap": gap,
                "boundary": {"rows": abs(gap), "side": "end" if gap > 0 else "start", "rule": "nearest row repeated"},
                "device": device.type,
            },
            {frames: content_digest(frames)},
            torch_versions(device.type) | distribution_versions(["simplejpeg", *method.versions]),
        ):
            return {}
        with ShardPart(output, stage.record["digest"]) as part:
            resumed = part.resumed
            figures = _run(shard, part, method, specification, device, num_threads)
            figures["videos_resumed"] = resumed
            part.check_rejects(
                len(shard.videos), maximum_loss_share, f"datasets.{specification.dataset}.maximum_loss_share"
            )
            part.finish(stage.record, [video.id for video in shard.videos])
        stage.finish(figures)
        return figures


def _run(
    shard: Shard,
    part: ShardPart,
    method: MotionMethod,
    specification: MotionSpecification,
    device: torch.device,
    num_threads: int,
) -> dict[str, Any]:
    """Compute and store the videos that the part does not hold yet."""
    kind = specification.motion_kind
    gap = kind.gap
    positions = [index for index, video in enumerate(shard.videos) if video.id not in part.done]
    total_pairs = sum(max(shard.videos[index].num_frames - abs(gap), 0) for index in positions)
    figures = StageFigures()
    waiting: deque[_Pending] = deque()
    current: _Pending | None = None
    stop = Event()
    start = clock = time.perf_counter()
    label = f"{specification.motion} {specification.dataset}"
    with (
        ThreadPoolExecutor(num_threads) as decoders,
        ThreadPoolExecutor(num_threads) as encoders,
        Progress(label, len(shard.videos), "videos", part.resumed) as progress,
    ):
        try:
            for chunk in _ahead(_chunks(shard, positions, method, gap, decoders), stop):
                now = time.perf_counter()
                figures.waiting_for_frames += now - clock
                if current is None:
                    current = _Pending(chunk.video)
                current.error = current.error or chunk.error
                if current.error is None:
                    try:
                        images = _when_there_is_room(method, kind.method, chunk.frames, gap)
                    except ValueError as error:
                        current.error = f"{kind.method}: {error}"
                    else:
                        first = figures.pairs == 0
                        figures.pairs += len(images)
                        figures.device += time.perf_counter() - now
                        current.rows += [encoders.submit(encode_image, row, kind.jpeg_quality) for row in images]
                        if first and device.type == "cpu":
                            _estimate(figures, total_pairs, specification.device, kind.method)
                if chunk.last:
                    waiting.append(current)
                    current = None
                clock = time.perf_counter()
                while waiting and (len(waiting) > _VIDEOS_BEHIND or all(row.done() for row in waiting[0].rows)):
                    _finish_video(part, waiting.popleft(), gap, progress)
                now = time.perf_counter()
                figures.waiting_for_jpegs += now - clock
                clock = now
            while waiting:
                _finish_video(part, waiting.popleft(), gap, progress)
            figures.waiting_for_jpegs += time.perf_counter() - clock
        finally:
            stop.set()
    figures.seconds = time.perf_counter() - start
    summary = figures.summary()
    print(
        f"{label}: {summary['pairs']} pairs, {summary['pairs_per_second']} pairs/s, bound by {summary['bound_by']}",
        file=sys.stderr,
        flush=True,
    )
    return summary

"""What is in one video file: its frames, rate and size, or the reason why it cannot be used.

Probing uses PyAV, because the ffmpeg of the package imageio-ffmpeg comes without ffprobe. It decodes with one thread
and packet by packet, so that it also sees errors over which the ffmpeg command goes on.
"""

import hashlib
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import av
import av.logging
from av.stream import Disposition

# libavformat opens text, still pictures and subtitles as these formats.
_NO_VIDEO_FORMATS = frozenset(
    {"tty", "image2", "image2pipe", "srt", "webvtt", "ass", "lrc", "subviewer", "concat", "hls"}
)
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Probe:
    """What probing found.

    ``num_frames`` counts the frames that decode (None if they were not decoded); ``height`` and ``width`` are as
    displayed, pixels; ``problem`` is empty, or ``reason: detail``; ``usable`` says whether anything was decoded.
    """

    num_frames: int | None = None
    frames_per_second: float | None = None
    height: int | None = None
    width: int | None = None
    content_digest: str = ""
    problem: str = ""
    usable: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the pipe between processes and for the cache."""
        return asdict(self)


def _boxes(path: Path, size: int) -> tuple[set[bytes], bool]:
    """Types of an MP4's top-level boxes, and whether the last one is longer than the file."""
    types: set[bytes] = set()
    position = 0
    with open(path, "rb") as file:
        while position + 8 <= size:
            file.seek(position)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:
                large = file.read(8)
                if len(large) < 8:
                    return types | {kind}, True
                length = struct.unpack(">Q", large)[0]
            elif length == 0:
                length = size - position
            if length < 8:
                break
            types.add(kind)
            position += length
    return types, position > size


def _is_mp4(head: bytes) -> bool:
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")


def _why_unopened(path: Path, size: int, head: bytes, error: Exception) -> str:
    """The reason for a file that libavformat does not open."""
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "not a video: the file is an HTML or XML page"
    if _is_mp4(head):
        types, cut = _boxes(path, size)
        if b"moov" not in types:
            return "truncated: the file ends before its index (moov atom)"
        if cut:
            return "truncated: the file ends inside a box"
        return f"undecodable: {error}"
    if head[:4] in (b"\x1aE\xdf\xa3", b"RIFF", b"FLV\x01", b"\x00\x00\x01\xba", b"OggS"):
        return f"undecodable: {_first_line(error)}"
    if b"\0" not in head and not any(byte > 126 for byte in head[:512]):
        return "not a video: the file is text"
    return f"not a video: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    """The error's message without the path, which differs between machines."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.splitlines() or [type(error).__name__])[0]


def _content_digest(path: Path, size: int, whole: bool) -> str:
    """SHA-256 of the whole file, or else of its size and its first and last 64 KiB."""
    with open(path, "rb") as file:
        if whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        head = file.read(_HEAD_BYTES)
        file.seek(max(size - _HEAD_BYTES, 0))
        return "sampled-" + hashlib.sha256(str(size).encode() + head + file.read(_HEAD_BYTES)).hexdigest()


def probe_frames(path: Path) -> Probe:
    """Probe a folder of numbered images (Something-Something v1): count, size and digest of names and sizes."""
    images = sorted(file for file in path.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not images:
        return Probe(problem="empty: the folder holds no images")
    sizes = [(image.name, image.stat().st_size) for image in images]
    digest = hashlib.sha256(repr(sizes).encode()).hexdigest()
    empty = [name for name, size in sizes if size == 0]
    if empty:
        return Probe(content_digest=digest, problem=f"damaged packet: {empty[0]} is empty")
    try:
        with av.open(str(images[0])) as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError) as error:
        return Probe(content_digest=digest, problem=f"undecodable: {images[0].name}: {_first_line(error)}")
    return Probe(len(images), None, frame.height, frame.width, digest, "", True)


def probe_file(path: Path, decode: bool) -> Probe:
    """Probe one video file, or one folder of frames.

    Args:
        path: the file.
        decode: decode every frame; otherwise only the first.

    Returns:
        What was found. A bad file raises nothing: its reason stands in ``problem`` (``empty``, ``not a video``, ``no
        video stream``, ``undecodable``, ``damaged packet``, ``truncated``).
    """
    av.logging.set_level(None)
    if path.is_dir():
        return probe_frames(path)
    size = path.stat().st_size
    if size == 0:
        return Probe(problem="empty: the file has 0 bytes")
    digest = _content_digest(path, size, whole=decode)
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        # file: keeps a name such as "a:b.mp4" or "-x.mp4" from being read as a protocol or an option.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        return Probe(content_digest=digest, problem=_why_unopened(path, size, head, error))
    with container:
        names = set(container.format.name.split(","))
        if names & _NO_VIDEO_FORMATS or any(name.endswith("_pipe") for name in names):
            return Probe(
                content_digest=digest, problem=_why_unopened(path, size, head, ValueError(container.format.name))
            )
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            return Probe(content_digest=digest, problem=f"no video stream: the file holds {kinds}")
        return _decode(container, streams[0], path, size, head, digest, decode)


def _decode(
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    path: Path,
    size: int,
    head: bytes,
    digest: str,
    decode: bool,
) -> Probe:
    if stream.codec_context is None:
        return Probe(content_digest=digest, problem="undecodable: no decoder for its codec")
    stream.codec_context.thread_count = 1
    rate = stream.average_rate or stream.guessed_rate
    declared = stream.frames
    if declared and rate and stream.duration and stream.time_base:
        # An edit list may leave frames out on purpose; the stream's duration then is the shorter of the two.
        declared = min(declared, int(stream.duration * stream.time_base * rate + 0.5))
    num_frames = 0
    height = width = None
    problem = ""
    last_end = 0.0
    try:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base:
                last_end = max(last_end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:
                continue
            if packet.is_corrupt and not problem:
                problem = f"damaged packet: a packet is incomplete after {num_frames} frames"
            try:
                frames = cast("list[av.VideoFrame]", packet.decode())
            except av.FFmpegError as error:
                problem = problem or f"damaged packet: {_first_line(error)} after {num_frames} frames"
                continue
            for frame in frames:
                if frame.is_corrupt and not problem:
                    problem = f"damaged packet: frame {num_frames} is damaged"
                if height is None:
                    height, width = frame.height, frame.width
                    if round(frame.rotation) % 180:
                        height, width = width, height
                num_frames += 1
            if num_frames and not decode:
                break
    except av.FFmpegError as error:
        problem = problem or f"damaged packet: {_first_line(error)} after {num_frames} frames"
    if not num_frames:
        detail = problem.partition(": ")[2] or "no frame could be decoded"
        return Probe(content_digest=digest, problem=f"undecodable: {detail}")
    if decode:
        cut = _truncation(container, size, path, head, num_frames, declared, last_end)
        # A truncated file also has a damaged last packet; the truncation is the cause.
        problem = cut or problem
    return Probe(
        num_frames if decode else None,
        float(rate) if rate else None,
        height,
        width,
        digest,
        problem,
        True,
    )


def _truncation(
    container: "av.container.InputContainer",
    size: int,
    path: Path,
    head: bytes,
    num_frames: int,
    declared: int,
    last_end: float,
) -> str:
    """The reason if much less was decoded than the container declares, else an empty string.

    One frame less than declared comes from a damaged packet or from rounding and is not a truncation. Containers
    without a frame count declare a duration, whose last second may have sound only.
    """
    if _is_mp4(head) and _boxes(path, size)[1]:
        return f"truncated: {num_frames} of {declared} frames decode" if declared else "truncated: the file ends early"
    if declared and num_frames < declared - max(1, declared // 50):
        return f"truncated: {num_frames} of {declared} frames decode"
    if not declared and container.duration:
        seconds = container.duration / av.time_base
        if last_end < seconds - max(1.0, seconds / 10):
            return f"truncated: ends at {last_end:.1f} s of {seconds:.1f} s"
    return ""


def file_identity(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; if either differs, the file has changed."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns

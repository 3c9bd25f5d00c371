"""What is in one video file: its frames, rate and size, or the reason why it cannot be used.

Probing uses PyAV, because the ffmpeg of the package imageio-ffmpeg comes without ffprobe. It decodes with one thread
and packet by packet, so that it also sees errors over which the ffmpeg command goes on.
"""

import errno
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import av
import av.logging
import simplejpeg
from av.stream import Disposition

from pipeline_lib.containers import FORMATS, PROTOCOLS
from pipeline_lib.manifests.content import HEAD_BYTES, JPEG_START, content_digest, frames_digest, not_regular
from pipeline_lib.manifests.damage import asf_size, avi_repeats, clock_gap, is_avi, is_mp4, mp4_boxes
from pipeline_lib.manifests.frame_folders import read_frame_folder

# libavformat opens text, subtitles and still pictures as these formats. They open no other file, and knowing them gives
# the better reason. An SVG may name other files.
_NO_VIDEO_FORMATS = frozenset({"tty", "srt", "webvtt", "ass", "lrc", "subviewer"}) | {
    name for name in av.formats_available if name.endswith("_pipe") and name != "svg_pipe"
}
_READING = {
    "protocol_whitelist": PROTOCOLS,
    "format_whitelist": ",".join([FORMATS, *sorted(_NO_VIDEO_FORMATS)]),
}
# Containers whose header holds the film's duration, written when the film was complete.
_STATES_DURATION = frozenset({"matroska", "flv", "asf", "mxf", "gxf", "nut", "rm", "wtv"})
_MACHINE_ERRORS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY),
        *(errno.ETIMEDOUT, errno.EINTR, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.ENOLCK, errno.EREMOTEIO, errno.ENETDOWN),
    }
)


@dataclass(frozen=True)
class Probe:
    """What probing found.

    ``num_frames`` counts the frames that decode (None if they were not decoded); ``height`` and ``width`` are as
    displayed, pixels; ``problem`` is empty, or ``reason: detail``; ``usable`` says whether anything was decoded.
    ``stream`` is the film's number among the file's pictures (covers not counted). ``passing``: the problem may lie in
    the machine and not in the file's bytes, so that it must be looked for again. ``num_flows``: of a folder.
    """

    num_frames: int | None = None
    frames_per_second: float | None = None
    height: int | None = None
    width: int | None = None
    content_digest: str = ""
    problem: str = ""
    usable: bool = False
    stream: int = 0
    passing: bool = False
    num_flows: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the pipe between processes and for the cache."""
        return asdict(self)


def _why_unopened(path: Path, size: int, head: bytes, error: Exception) -> str:
    """The reason for a file that libavformat does not open."""
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "not a video: the file is an HTML or XML page"
    if is_mp4(head):
        types, cut = mp4_boxes(path, size)
        if b"moov" not in types:
            return "truncated: the file ends before its index (moov atom)"
        if cut:
            return "truncated: the file ends inside a box"
        return f"undecodable: {_first_line(error)}"
    if head[:4] in (b"\x1aE\xdf\xa3", b"RIFF", b"FLV\x01", b"\x00\x00\x01\xba", b"OggS"):
        return f"undecodable: {_first_line(error)}"
    if b"\0" not in head and not any(byte > 126 for byte in head[:512]):
        return "not a video: the file is text"
    return f"not a video: {_first_line(error)}"


def unreadable(error: OSError) -> str:
    """The reason for a file that the machine does not let read."""
    return f"unreadable: {error.strerror or type(error).__name__}"


def is_passing(error: BaseException, path: Path) -> bool:
    """Whether an error says something about the machine (no memory, no rights, a server that is away).

    libavformat also says EIO of a file that ends too early: there the file itself is read once more.
    """
    if isinstance(error, MemoryError):
        return True
    code = getattr(error, "errno", None)
    if code == errno.EIO:
        try:
            with open(path, "rb") as file:
                while file.read(1 << 20):
                    pass
        except OSError:
            return True
        return False
    return code in _MACHINE_ERRORS


def _first_line(error: Exception) -> str:
    """The error's message without the path, which differs between machines."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.splitlines() or [type(error).__name__])[0]


def _image_size(image: Path) -> tuple[int, int]:
    """Height and width of a picture, which is decoded.

    Raises:
        av.FFmpegError: it cannot be decoded.
        ValueError: it is a JPEG that cannot be decoded to its end, which libavcodec would not say.
    """
    data = image.read_bytes()
    if data.startswith(JPEG_START):
        height, width = simplejpeg.decode_jpeg(data, colorspace="GRAY").shape[:2]
        return height, width
    # By its content alone, because libavformat takes a % in a picture's path for a pattern.
    with av.open(io.BytesIO(data), "r", options=_READING) as container:
        frame = next(container.decode(video=0))
        return frame.height, frame.width


def probe_frames(path: Path, decode: bool) -> Probe:
    """Probe a folder of numbered images: counts, sizes, and the digest of names and sizes.

    Args:
        path: the folder.
        decode: decode every image; otherwise only the first of each kind.
    """
    folder = read_frame_folder(path)
    digest = frames_digest(path)
    if folder.problem:
        return Probe(content_digest=digest, problem=folder.problem)
    empty = [image.name for image in folder.images if image.stat().st_size == 0]
    if empty:
        return Probe(content_digest=digest, problem=f"damaged packet: {empty[0]} is empty")
    kinds = (folder.frames, folder.flow_x, folder.flow_y)
    size: tuple[int, int] | None = None
    for image in (image for images in kinds for image in (images if decode else images[:1])):
        try:
            height, width = _image_size(image)
        except (av.FFmpegError, StopIteration, IndexError, ValueError) as error:
            problem = f"undecodable: {image.name}: {_first_line(error)}"
            return Probe(content_digest=digest, problem=problem, passing=is_passing(error, image))
        size = size or (height, width)
        if (height, width) != size:
            first = folder.frames[0].name
            problem = f"unequal sizes: {image.name} is {width}×{height}, {first} is {size[1]}×{size[0]}"
            return Probe(content_digest=digest, problem=problem)
    assert size is not None
    flows = len(folder.flow_x) or None
    return Probe(len(folder.frames), None, *size, digest, "", True, num_flows=flows)


def probe_file(path: Path, decode: bool) -> Probe:
    """Probe one video file, or one folder of frames.

    Args:
        path: the file.
        decode: decode every frame; otherwise only the first.

    Returns:
        What was found. A bad file raises nothing: its reason stands in ``problem`` (``empty``, ``not a video``, ``no
        video stream``, ``undecodable``, ``damaged packet``, ``truncated``, ``clock gap``).

    Raises:
        OSError: the file cannot be read; that is an error of the machine, or the file has vanished.
    """
    av.logging.set_level(None)
    if path.is_dir():
        return probe_frames(path, decode)
    unusual = not_regular(path)
    if unusual:
        return Probe(problem=unusual)
    size = path.stat().st_size
    if size == 0:
        return Probe(problem="empty: the file has 0 bytes")
    digest = content_digest(path, size, whole=decode)
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    try:
        # file: keeps a name such as "a:b.mp4" or "-x.mp4" from being read as a protocol or an option.
        container = av.open(f"file:{path}", options=_READING, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        problem = _why_unopened(path, size, head, error)
        return Probe(content_digest=digest, problem=problem, passing=is_passing(error, path))
    with container:
        if _NO_VIDEO_FORMATS & set(container.format.name.split(",")):
            return Probe(
                content_digest=digest, problem=_why_unopened(path, size, head, ValueError(container.format.name))
            )
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            return Probe(content_digest=digest, problem=f"no video stream: the file holds {kinds}")
        return _decode(container, streams, _film(streams), path, size, head, digest, decode)


def _film(streams: Sequence["av.VideoStream"]) -> int:
    """Which of several pictures is the film, as players choose it: the default one, then the largest, then the first.

    A stream of one frame is a cover or a thumbnail, even if it does not say so.
    """

    def rank(number: int) -> tuple[bool, bool, bool, int]:
        stream = streams[number]
        context = stream.codec_context
        area = context.width * context.height if context is not None else 0
        return context is not None, stream.frames != 1, bool(stream.disposition & Disposition.default), area

    return max(range(len(streams)), key=rank)


def _decode(
    container: "av.container.InputContainer",
    streams: Sequence["av.VideoStream"],
    film: int,
    path: Path,
    size: int,
    head: bytes,
    digest: str,
    decode: bool,
) -> Probe:
    stream = streams[film]
    if stream.codec_context is None:
        return Probe(content_digest=digest, problem="undecodable: no decoder for its codec")
    stream.codec_context.thread_count = 1
    rate = stream.average_rate or stream.guessed_rate
    declared = stream.frames
    if declared and rate and stream.duration and stream.time_base and not is_avi(head):
        # An edit list may leave frames out on purpose; the stream's duration then is the shorter of the two.
        declared = min(declared, int(stream.duration * stream.time_base * rate + 0.5))
    num_frames = num_packets = 0
    height = width = None
    problem = gap = ""
    last_end = 0.0
    time = None
    passing = False
    # ffmpeg takes jumps out of the clocks of such formats (MPEG transport streams), and gives no frame for them.
    keeps_time = not container.format.flags & cast("int", av.format.Flags.ts_discont.value)
    try:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base:
                last_end = max(last_end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:
                continue
            num_packets += packet.size > 0
            if packet.is_corrupt and not problem:
                problem = f"damaged packet: a packet is incomplete after {num_frames} frames"
            try:
                frames = cast("list[av.VideoFrame]", packet.decode())
            except av.FFmpegError as error:
                passing |= is_passing(error, path)
                problem = problem or f"damaged packet: {_first_line(error)} after {num_frames} frames"
                continue
            for frame in frames:
                if frame.is_corrupt and not problem:
                    problem = f"damaged packet: frame {num_frames} is damaged"
                if height is None:
                    height, width = frame.height, frame.width
                    if round(frame.rotation) % 180:
                        height, width = width, height
                if frame.time is not None and keeps_time:
                    gap = gap or clock_gap(frame.time - (frame.time if time is None else time), num_frames)
                    time = frame.time
                num_frames += 1
            if num_frames and not decode:
                break
    except av.FFmpegError as error:
        passing |= is_passing(error, path)
        problem = problem or f"damaged packet: {_first_line(error)} after {num_frames} frames"
    if not num_frames:
        detail = problem.partition(": ")[2] or "no frame could be decoded"
        return Probe(content_digest=digest, problem=f"undecodable: {detail}", passing=passing)
    if decode:
        # The header of an AVI counts chunks, also those that hold no picture of their own.
        stored = num_packets + avi_repeats(path, stream.index) if is_avi(head) else num_frames
        cut = _truncation(container, size, path, head, num_frames, stored, declared, last_end, float(rate or 0))
        # A truncated file also has a damaged last packet; the truncation is the cause.
        problem = cut or problem or gap
    return Probe(
        num_frames if decode else None,
        float(rate) if rate else None,
        height,
        width,
        digest,
        problem,
        True,
        film,
        passing,
    )


def _truncation(
    container: "av.container.InputContainer",
    size: int,
    path: Path,
    head: bytes,
    num_frames: int,
    stored: int,
    declared: int,
    last_end: float,
    rate: float,
) -> str:
    """The reason if much less was decoded than the container declares, else an empty string.

    One frame less than declared comes from a damaged packet or from rounding and is not a truncation. Containers
    without a frame count declare a duration. It covers all their streams, and ``last_end`` is the end of the last
    packet of any stream. So in those that write it, the two agree to a frame or so (the last one's length is often not
    written). Elsewhere the duration is libavformat's estimate from the file's size or rate.
    """
    if is_mp4(head) and mp4_boxes(path, size)[1]:
        return f"truncated: {num_frames} of {declared} frames decode" if declared else "truncated: the file ends early"
    if declared and stored < declared - max(1, declared // 50):
        return f"truncated: {num_frames} of {declared} frames decode"
    if size < asf_size(head) * 49 // 50:
        return f"truncated: {size} of {asf_size(head)} bytes"
    if not declared and container.duration:
        seconds = container.duration / av.time_base
        tolerance = max(1.0, seconds / 10)
        if _STATES_DURATION & set(container.format.name.split(",")):
            tolerance = max(2 / rate if rate else 0.1, 0.1, seconds / 50)
        if last_end < seconds - tolerance:
            return f"truncated: ends at {last_end:.1f} s of {seconds:.1f} s"
    return ""

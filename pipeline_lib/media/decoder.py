"""Raw frames of a video from one ffmpeg process, over a pipe."""

import fcntl
import os
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import ffmpeg
import numpy as np

from pipeline_lib.containers import FORMATS, PROTOCOLS
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.damage import clock_gap
from pipeline_lib.manifests.frame_folders import read_frame_folder
from pipeline_lib.media.ffmpeg import ffmpeg_executable

# A pipe larger than the kernel's 64 KiB holds several frames, so that decoder and encoder rarely wait for each other.
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_MARKER = b"FRAME\n"
# Limited range (ITU-R BT.601): luma 16…235, chroma 128 ± 112. A JPEG has full range: 0…255, 128 ± 127.5. Chroma 16
# gives exactly 0.5, which processors round differently if they fuse multiply and add; the last term avoids that.
_LUMA_SCALE, _CHROMA_SCALE = 255 / 219, 255 / 224
_LUMA_SHIFT, _CHROMA_SHIFT = -16 * _LUMA_SCALE, 128 - 128 * _CHROMA_SCALE - 1 / 512
# ffmpeg wants a rate for images; at the native rate, where nobody knows it, it does not count.
_IMAGES_PER_SECOND = 25.0
# Below this short side swscale rounds exactly. Its fast way takes levels from the luma wherever the matrix changes: one
# to two at ordinary sizes, but six where a picture is made twenty times smaller.
_SMALL_SIDE = 64
# A hostile file may declare a frame of gigabytes. A decoder of 8K video needs far less; each thread has its own frames.
_MEMORY_BYTES = 6 << 30
_MEMORY_BYTES_PER_THREAD = 1 << 29


class DecodingError(Exception):
    """A video cannot be decoded; the message is the reason that the shard stores."""


@dataclass(frozen=True)
class DecodingOptions:
    """How ffmpeg decodes a video.

    ``short_side``, pixels: larger videos are scaled down to it. ``frames_per_second``: None keeps every frame as it is.
    ``keep_damaged``: ignore errors and take the frames that decode. ``start`` and ``end``, seconds: decode this
    interval. ``stall_seconds``: the longest wait for a frame; ``total_seconds``: the longest time for the whole video.
    ``stream``: which of the file's pictures is the film, covers not counted. ``images_per_second``: the rate of a
    folder of images, None if it is unknown.
    """

    short_side: int
    frames_per_second: float | None = None
    keep_damaged: bool = False
    start: float | None = None
    end: float | None = None
    num_threads: int = 1
    stall_seconds: float = 120.0
    total_seconds: float = 3600.0
    stream: int = 0
    images_per_second: float | None = None


def _input(path: Path, options: DecodingOptions) -> "ffmpeg.nodes.FilterableStream":
    arguments: dict[str, object] = {"threads": options.num_threads, "protocol_whitelist": PROTOCOLS}
    if options.start is not None:
        arguments["ss"] = f"{options.start:.3f}"
    if options.end is not None:
        arguments["t"] = f"{options.end - (options.start or 0.0):.3f}"
    # file: keeps a name such as "-x.mp4" or "a:b.mp4" from being read as an option or a protocol.
    if not path.is_dir():
        return ffmpeg.input(f"file:{path}", format_whitelist=FORMATS, **arguments)
    first = read_frame_folder(path).frames[0]
    digits = first.stem[len(first.stem.rstrip("0123456789")) :]
    folder = str(path).replace("%", "%%")
    pattern = f"file:{folder}/{first.stem.removesuffix(digits)}%0{len(digits)}d{first.suffix}"
    rate = options.images_per_second or _IMAGES_PER_SECOND
    arguments |= {"format": "image2", "format_whitelist": "image2", "framerate": f"{rate:g}"}
    return ffmpeg.input(pattern, start_number=int(digits), **arguments)


def decoding_command(path: Path, options: DecodingOptions) -> list[str]:
    """The ffmpeg command that writes the frames to its standard output.

    ffmpeg applies rotation flags first (its default), so that the short side is that of the displayed picture. The
    output is YUV 4:2:0 with BT.601 coefficients, as in a JPEG file (ITU-T T.871), in the video's own range.
    :class:`RawFrames` expands a limited range in a fifth of ffmpeg's time. Bicubic scaling is ffmpeg's default.

    At the native rate each frame passes once, however close two lie. At a fixed rate the filter chooses the frames, and
    ``cfr`` carries the rate on over a change of the picture's size, at which ffmpeg starts its filters anew.
    """
    side = options.short_side
    stream = _input(path, options)[f"V:{options.stream}"]
    if options.frames_per_second is not None:
        stream = stream.filter("fps", fps=f"{options.frames_per_second:g}")
    stream = stream.filter(
        "scale",
        w=f"if(gt(min(iw,ih),{side}),if(gt(iw,ih),round(iw*{side}/ih),{side}),iw)",
        h=f"if(gt(min(iw,ih),{side}),if(gt(iw,ih),{side},round(ih*{side}/iw)),ih)",
        flags="bicubic" if side >= _SMALL_SIDE else "bicubic+accurate_rnd+full_chroma_int",
        out_color_matrix="bt601",
    ).filter("format", "yuv420p")
    timing = {"fps_mode": "passthrough"}
    if options.frames_per_second is not None:
        timing = {"fps_mode": "cfr", "r": f"{options.frames_per_second:g}"}
    # The pipe holds no times. Numbers in their place never fall together, which ffmpeg takes for an error of the video.
    timing["bsf:v"] = "setts=ts=N"
    output = ffmpeg.output(stream, "pipe:1", format="yuv4mpegpipe", strict="-1", **timing)
    arguments = ["-nostdin", "-hide_banner", "-v", "error", "-filter_complex_threads", "1"]
    if not options.keep_damaged:
        arguments.append("-xerror")
    command: list[str] = output.global_args(*arguments).compile(cmd=ffmpeg_executable())
    return command


@dataclass
class RawFrames:
    """Frames of one size, read one after the other.

    Iterating yields ``(Y, U, V)``: uint8 arrays (H, W) and twice (⌈H/2⌉, ⌈W/2⌉), full range, valid until the next step.
    ``full_range`` says whether ffmpeg delivers full range.
    """

    height: int
    width: int
    frames_per_second: float
    full_range: bool
    _descriptor: int
    _clock: "_Clock"

    def _planes(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Y, U and V in one buffer, because libjpeg-turbo reads a column and a row beyond a luma plane of odd size."""
        rows, columns = (self.height + 1) // 2, (self.width + 1) // 2
        luma, chroma = self.height * self.width, rows * columns
        return (
            data[:luma].reshape(self.height, self.width),
            data[luma : luma + chroma].reshape(rows, columns),
            data[luma + chroma :].reshape(rows, columns),
        )

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        size = self.height * self.width + 2 * ((self.height + 1) // 2) * ((self.width + 1) // 2)
        buffer = bytearray(len(_MARKER) + size)
        view = memoryview(buffer)
        planes = self._planes(np.frombuffer(buffer, dtype=np.uint8)[len(_MARKER) :])
        expanded = planes if self.full_range else self._planes(np.empty(size, dtype=np.uint8))
        while True:
            filled = 0
            while filled < len(buffer):
                self._clock.wait()
                count = os.readv(self._descriptor, [view[filled:]])
                if count == 0:
                    break
                filled += count
            if filled < len(buffer):
                # Only whole frames count. If a frame is cut off, ffmpeg also ends with an error status.
                return
            assert buffer.startswith(_MARKER), "the stream of frames is out of step"
            if not self.full_range:
                # addWeighted with the same picture twice scales, shifts and saturates in one vectorised pass.
                cv2.addWeighted(planes[0], _LUMA_SCALE, planes[0], 0, _LUMA_SHIFT, expanded[0])
                cv2.addWeighted(planes[1], _CHROMA_SCALE, planes[1], 0, _CHROMA_SHIFT, expanded[1])
                cv2.addWeighted(planes[2], _CHROMA_SCALE, planes[2], 0, _CHROMA_SHIFT, expanded[2])
            yield expanded


class _Clock:
    """Waits until a pipe can be read, never longer than a video may take."""

    def __init__(self, descriptor: int, options: DecodingOptions) -> None:
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._options = options
        self._deadline = time.monotonic() + options.total_seconds

    def wait(self) -> None:
        """Return when there is something to read.

        Raises:
            DecodingError: nothing comes, or the video as a whole takes too long.
        """
        stall, total = self._options.stall_seconds, self._options.total_seconds
        left = self._deadline - time.monotonic()
        if left > 0 and self._poll.poll(min(stall, left) * 1000):
            return
        if left < stall:
            raise DecodingError(f"decoding timed out: not finished within {total:g} s")
        raise DecodingError(f"decoding timed out: no frame within {stall:g} s")


def _limit_memory(process: "subprocess.Popen[bytes]", num_threads: int) -> None:
    """Bound the address space of a decoder; a smaller limit of the machine's own stays."""
    wanted = _MEMORY_BYTES + num_threads * _MEMORY_BYTES_PER_THREAD
    # It may have ended already.
    with suppress(ProcessLookupError):
        hard = resource.prlimit(process.pid, resource.RLIMIT_AS)[1]
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (soft, hard))


def _read_header(descriptor: int, clock: _Clock) -> dict[str, str]:
    """The parameters of the YUV4MPEG2 header by their letter, XNAME=VALUE by XNAME; empty if ffmpeg wrote nothing."""
    line = bytearray()
    while not line.endswith(b"\n"):
        clock.wait()
        byte = os.read(descriptor, 1)
        if not byte:
            return {}
        line += byte
    words = [word.partition("=") if word.startswith("X") else (word[0], "", word[1:]) for word in line.decode().split()]
    return {name: value for name, _, value in words[1:]}


def check_clock(path: Path, options: DecodingOptions) -> None:
    """Look for a gap of the clock in a file's packets, without decoding.

    At a fixed rate ffmpeg fills a gap of hours with one frame, and sometimes with all its copies in memory at once.

    Raises:
        DecodingError: the clock stands still for longer than ``CLOCK_GAP_SECONDS``, or reading the file takes too long.
    """
    stream = _input(path, options)[f"V:{options.stream}"]
    listing = ffmpeg.output(stream, "pipe:1", format="framecrc", codec="copy").global_args("-copyinkf", "-v", "quiet")
    command = listing.global_args("-nostdin").compile(cmd=ffmpeg_executable())
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    _limit_memory(process, options.num_threads)
    try:
        text = process.communicate(timeout=options.total_seconds)[0].decode("ascii", "replace")
    except subprocess.TimeoutExpired:
        raise DecodingError(f"decoding timed out: not read within {options.total_seconds:g} s") from None
    finally:
        process.kill()
        process.wait()
    tick = 0.0
    times = []
    for line in text.splitlines():
        # "#tb 0: 1/12800", and of each packet "0, dts, pts, duration, size, checksum".
        if line.startswith("#tb"):
            numerator, denominator = line.rpartition(" ")[2].split("/")
            tick = int(numerator) / int(denominator)
        elif line.startswith("0,"):
            times.append(int(line.split(",")[2]))
    times.sort()
    for number, (one, next_one) in enumerate(pairwise(times), 1):
        if gap := clock_gap((next_one - one) * tick, number):
            raise DecodingError(gap)


@contextmanager
def decode_video(path: Path, options: DecodingOptions) -> Iterator[RawFrames]:
    """Run ffmpeg on one video and give its frames.

    Args:
        path: a video file, or a folder of numbered images.
        options: size, rate, interval.

    Raises:
        DecodingError: ffmpeg gives no frame, stalls, or reports an error (not with ``keep_damaged``). Errors after the
            first frame are raised at the end of the block.
        UserError: something killed ffmpeg. That says nothing about the video.
    """
    command = decoding_command(path, options)
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages, bufsize=0
        )
        assert process.stdout is not None
        _limit_memory(process, options.num_threads)
        descriptor = process.stdout.fileno()
        clock = _Clock(descriptor, options)
        # If the user's limit of pipe memory is reached, the pipe keeps its size.
        with suppress(OSError):
            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            header = _read_header(descriptor, clock)
            if header:
                numerator, denominator = map(int, header["F"].split(":"))
                rate = numerator / denominator if numerator and denominator else 0.0
                full = header.get("XCOLORRANGE") == "FULL"
                yield RawFrames(int(header["H"]), int(header["W"]), rate, full, descriptor, clock)
            status = process.wait()
            if status == -signal.SIGKILL:
                raise UserError(
                    f"ffmpeg was killed while it decoded {path}; if memory ran out, use fewer threads. What is done "
                    "stays: run the same command again."
                )
            if not header:
                raise DecodingError("undecodable: ffmpeg gives no frame")
            if status != 0 and not options.keep_damaged:
                # ffmpeg's own messages contain addresses and come in any order, so an artefact must not hold them.
                raise DecodingError("damaged packet: ffmpeg reports an error while decoding")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

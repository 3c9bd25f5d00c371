"""Clips of YouTube videos: yt-dlp fetches the video, ffmpeg cuts the annotated interval."""

import importlib.util
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from pipeline_lib.downloads.failures import DiskFullError, FailedError, RefusedError, StoppedError
from pipeline_lib.downloads.items import Item
from pipeline_lib.downloads.transfer import DISK_FULL_ERRORS, Connection
from pipeline_lib.errors import UserError

# What the site says to a client that it takes for a robot, as yt-dlp hands it on.
REFUSALS = re.compile(r"HTTP Error 429|not a bot|rate-limited|unusual traffic", re.IGNORECASE)


def require_yt_dlp() -> None:
    """Check that yt-dlp is installed.

    Raises:
        UserError: it is not; the message says how to install it.
    """
    if importlib.util.find_spec("yt_dlp") is None:
        raise UserError(
            "This download is of kind `youtube` and needs yt-dlp: pip install -c constraints.txt -e '.[download]'"
        )


def trim_command(ffmpeg: str, source: Path, target: Path, start: float, end: float) -> list[str]:
    """The command that cuts [start, end) seconds out of a video.

    The picture is encoded again, as ActivityNet's crawler for Kinetics does it (Crawler/Kinetics/download.py):
    copying could only cut at key frames, seconds away from the annotated times.
    """
    return [
        ffmpeg, "-nostdin", "-y", "-loglevel", "error",
        "-ss", str(start), "-i", str(source), "-t", str(end - start),
        "-c:v", "libx264", "-crf", "18", "-preset", "fast", "-pix_fmt", "yuv420p", "-c:a", "aac",
        "-threads", "1", "-f", "mp4", str(target),
    ]  # fmt: skip


def trim(ffmpeg: str, source: Path, target: Path, start: float, end: float) -> None:
    """Cut [start, end) seconds of ``source`` into ``target`` (an mp4).

    Raises:
        FailedError: the interval is empty or lies behind the end, or ffmpeg cannot read the video.
    """
    if end <= start:
        raise FailedError(f"the interval {start}-{end} s is empty")
    result = subprocess.run(
        trim_command(ffmpeg, source, target, start, end), capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        raise FailedError(f"ffmpeg cannot cut {start}-{end} s: {lines[-1] if lines else 'no message'}")
    # Behind the end ffmpeg writes a file without a picture, and calls it a success.
    check = subprocess.run(
        [ffmpeg, "-nostdin", "-i", str(target), "-map", "0:v:0", "-frames:v", "1", "-f", "null", "-"],
        capture_output=True,
        check=False,
    )
    if check.returncode != 0 or b"frame=    0" in check.stderr:
        raise FailedError(f"the video ends before {start} s")


def _options(folder: Path, connection: Connection, ffmpeg: str, maximum_height: int, hook: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "format": f"bestvideo[height<={maximum_height}]+bestaudio/best[height<={maximum_height}]/best",
        "outtmpl": {"default": str(folder / "video.%(ext)s")},
        "ffmpeg_location": ffmpeg,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "noplaylist": True,
        "cachedir": False,
        "retries": connection.retries,
        "socket_timeout": connection.timeout_seconds,
        "progress_hooks": [hook],
    }
    if connection.bytes.rate is not None:
        # yt-dlp keeps a rate of its own in each worker: together they keep the stage's.
        options["ratelimit"] = connection.bytes.rate / connection.workers
    return options


def fetch_clip(
    item: Item, target: Path, connection: Connection, ffmpeg: str, maximum_height: int, stop: threading.Event
) -> int:
    """Fetch a video by its page and cut the annotated interval; return the clip's bytes.

    Args:
        item: its ``url`` is a page that yt-dlp understands; without an interval the whole video is kept.
        target: where the clip goes.
        connection: retries, time-outs and rates.
        ffmpeg: the executable.
        maximum_height: the best format up to this height, pixels.
        stop: ends the download.

    Raises:
        FailedError: the video is private, removed, shorter than the interval …; the message is the site's.
        RefusedError: the site takes this client for a robot.
        StoppedError: the stage ends.
        DiskFullError: the disk is full.
    """
    import yt_dlp

    def hook(_: Any) -> None:
        if stop.is_set():
            raise StoppedError("It was stopped; run the same command again: it goes on from here.")

    connection.requests.spend()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.stem}.", suffix=".partial", dir=target.parent))
    try:
        try:
            with yt_dlp.YoutubeDL(_options(folder, connection, ffmpeg, maximum_height, hook)) as client:
                client.download([item.url])
        except yt_dlp.utils.DownloadError as error:
            message = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).removeprefix("ERROR: ").split("\n")[0]
            if "No space left on device" in message:
                raise DiskFullError(f"{target.parent}: {message}") from error
            raise (RefusedError if REFUSALS.search(message) else FailedError)(message) from error
        found = sorted(path for path in folder.iterdir() if path.name.startswith("video."))
        if len(found) != 1:
            raise FailedError("yt-dlp gave no video")
        clip = found[0]
        if item.start is not None and item.end is not None:
            clip = folder / "clip.mp4"
            trim(ffmpeg, found[0], clip, item.start, item.end)
        size = clip.stat().st_size
        clip.replace(target)
        return size
    except OSError as error:
        if error.errno in DISK_FULL_ERRORS:
            raise DiskFullError(
                f"{target.parent}: {error.strerror}. Make room and run the same command again."
            ) from error
        raise FailedError(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)

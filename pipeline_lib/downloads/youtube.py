"""Parts of YouTube videos: yt-dlp fetches the source, ffmpeg cuts out the annotated interval."""

import re
import shutil
import subprocess
from pathlib import Path

from pipeline_lib.artefacts.atomic import publish
from pipeline_lib.containers import reading_arguments
from pipeline_lib.downloads.items import Item
from pipeline_lib.downloads.session import FailedError, RefusedError, Session
from pipeline_lib.downloads.transfer import LONGEST_WAIT_SECONDS
from pipeline_lib.errors import UserError

# What the site tells a client that it takes for a robot, in yt-dlp's messages.
REFUSALS = re.compile(r"HTTP Error 429|not a bot|rate-limited|unusual traffic", re.IGNORECASE)


def trim(ffmpeg: str, source: Path, target: Path, start: float, end: float) -> None:
    """Cut [start, end) seconds of ``source`` into ``target`` (an mp4).

    The picture is encoded again, as in ActivityNet's crawler for Kinetics (Crawler/Kinetics/download.py), because a
    copy could be cut only at key frames, seconds away from the annotated times.

    Raises:
        FailedError: the interval is empty or lies after the end, or ffmpeg cannot read the video.
    """
    if end <= start:
        raise FailedError(f"the interval {start}-{end} s is empty")
    cut = [
        *("-y", "-loglevel", "error", "-progress", "-", *reading_arguments()),
        *("-ss", str(start), "-i", f"file:{source}", "-t", str(end - start)),
        *("-c:v", "libx264", "-crf", "18", "-preset", "fast", "-pix_fmt", "yuv420p", "-c:a", "aac"),
        *("-threads", "1", "-f", "mp4", str(target)),
    ]
    result = subprocess.run([ffmpeg, "-nostdin", *cut], capture_output=True, text=True, errors="replace", check=False)
    if result.returncode != 0:
        raise FailedError(
            f"ffmpeg cannot cut {start}-{end} s: {(result.stderr.strip() or 'no message').splitlines()[-1]}"
        )
    # After the end ffmpeg writes a file without a picture and reports success.
    if not re.search(r"^frame=0*[1-9]", result.stdout, re.MULTILINE):
        raise FailedError(f"the video ends before {start} s")


def arguments(folder: Path, session: Session, ffmpeg: str) -> list[str]:
    """Options of yt-dlp: what to fetch, and each worker's share of the configured rates.

    `--download-archive` is not used, because it remembers sources, and two items may be parts of one source.
    """
    settings, rates, workers = session.settings, session.rates, session.settings.workers
    height = f"[height<={settings.maximum_height}]"
    pause = f"exp={settings.backoff_seconds}:{LONGEST_WAIT_SECONDS}"
    return [
        *("--ignore-config", "--abort-on-error", "--no-playlist", "--no-cache-dir"),
        *("--quiet", "--no-warnings", "--no-progress", "--ffmpeg-location", ffmpeg),
        # The format is in the name, so that a part from an earlier run is continued only in its own format.
        *("--paths", str(folder), "--output", "video.%(format_id)s.%(ext)s"),
        *("--format", f"bestvideo{height}+bestaudio/best{height}/best"),
        *("--retries", str(settings.retries), "--extractor-retries", str(settings.retries)),
        *("--retry-sleep", pause, "--retry-sleep", f"extractor:{pause}"),
        *("--socket-timeout", str(settings.timeout_seconds)),
        *(("--limit-rate", str(rates["bytes"] / workers)) if rates["bytes"] else ()),
        *(("--sleep-requests", str(workers / rates["requests"])) if rates["requests"] else ()),
    ]


def fetch_clip(item: Item, target: Path, session: Session, ffmpeg: str) -> int:
    """Fetch a video by its page and cut out the annotated interval; return the number of its bytes.

    Args:
        item: its ``url`` is a page that yt-dlp understands; without an interval the whole video is kept.
        target: the video's final path; a folder ``.{name}.partial`` beside it keeps what an interrupted stage has
            fetched.
        session: settings and rates.
        ffmpeg: the executable.

    Raises:
        FailedError: the video is private, removed, shorter than the interval …; the message is the site's.
        RefusedError: the site takes this client for a robot.
        StoppedError: the stage ends.
    """
    try:
        import yt_dlp
    except ImportError as error:
        raise UserError("Kind `youtube` needs yt-dlp: pip install -c constraints.txt -e '.[download]'") from error
    session.require_room()
    session.spend("requests")
    folder = target.with_name(f".{target.name}.partial")
    folder.mkdir(exist_ok=True)
    try:
        options = yt_dlp.parse_options(arguments(folder, session, ffmpeg)).ydl_opts
        with yt_dlp.YoutubeDL(options | {"progress_hooks": [lambda _: session.wait()]}) as client:
            downloads = (client.extract_info(item.url) or {}).get("requested_downloads") or []
        if len(downloads) != 1:
            raise FailedError("yt-dlp gave no video")
        clip = Path(downloads[0]["filepath"])
        if len(item.times) == 2:
            trim(ffmpeg, clip, folder / "clip.mp4", item.times["start"], item.times["end"])
            clip = folder / "clip.mp4"
        size = clip.stat().st_size
        publish(clip, target)
        return size
    except yt_dlp.utils.YoutubeDLError as error:
        message = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).removeprefix("ERROR: ").split("\n")[0]
        session.require_room()  # a full disk says nothing about the video
        raise (RefusedError if REFUSALS.search(message) else FailedError)(message) from error
    finally:
        if not session.stop.is_set():
            shutil.rmtree(folder, ignore_errors=True)

"""Which ffmpeg is used: the one on the PATH, else the binary of the package imageio-ffmpeg."""

import shutil
import subprocess
from functools import cache

import imageio_ffmpeg

from pipeline_lib.errors import UserError


@cache
def ffmpeg_executable() -> str:
    """Path of the ffmpeg to run.

    Raises:
        UserError: there is none on the PATH, and imageio-ffmpeg has none for this platform.
    """
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        executable: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError(
            f"no ffmpeg on the PATH, and none in the package imageio-ffmpeg ({error}). Install ffmpeg."
        ) from (error)
    return executable


@cache
def ffmpeg_version() -> str:
    """The version as ffmpeg prints it (``7.0.2-static``), for the provenance of what it made.

    Raises:
        UserError: the executable does not run.
    """
    executable = ffmpeg_executable()
    try:
        result = subprocess.run([executable, "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{executable} does not run: {error}") from error
    words = result.stdout.split()
    return words[2] if words[:2] == ["ffmpeg", "version"] else result.stdout.splitlines()[0]

"""Which ffmpeg is used: the one on the PATH if it is new enough and its colours are right, else imageio-ffmpeg's."""

import re
import shutil
import subprocess
import sys
from functools import cache

import imageio_ffmpeg

from pipeline_lib.containers import reading_arguments
from pipeline_lib.errors import UserError

_OLDEST = (5, 1)
# Flat pictures in limited BT.709 (ITU-R BT.709, items 3.2 and 3.4) and the same colours in limited BT.601: Y, U, V.
_COLOURS = {(63, 102, 240): (82, 90, 240), (173, 42, 26): (145, 54, 34), (100, 128, 128): (100, 128, 128)}
_SIDE = 16
# Two levels are the rounding of swscale's tables; an old version that overlooks the matrix is 14 levels off.
_TOLERANCE = 2
_SECONDS = 30


def _flat(colour: tuple[int, int, int]) -> bytes:
    luma, *chroma = colour
    return bytes([luma]) * _SIDE**2 + b"".join(bytes([level]) * (_SIDE // 2) ** 2 for level in chroma)


@cache
def _version(executable: str) -> str:
    """The version as ffmpeg prints it.

    Raises:
        UserError: the executable does not run.
    """
    try:
        result = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, errors="replace", check=True, timeout=_SECONDS
        )
        words = result.stdout.split()
        return words[2] if words[:2] == ["ffmpeg", "version"] else result.stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise UserError(f"{executable} does not run: {error}") from error


def _problem(executable: str) -> str:
    """Why an ffmpeg is not used, or an empty string: its version, and a small picture whose colours are known."""
    try:
        version = _version(executable)
    except UserError as error:
        return str(error)
    # Builds without a number are snapshots of the development.
    found = re.match(r"n?(\d+)\.(\d+)", version)
    if found is not None and (int(found[1]), int(found[2])) < _OLDEST:
        return f"version {version} is older than {'.'.join(map(str, _OLDEST))}"
    graph = "setparams=colorspace=bt709:range=limited,scale=flags=bicubic:out_color_matrix=bt601,format=yuv420p"
    command = [executable, "-nostdin", "-v", "error", *reading_arguments("rawvideo"), "-f", "rawvideo"]
    command += ["-pix_fmt", "yuv420p", "-video_size", f"{_SIDE}x{_SIDE}", "-i", "pipe:0", "-filter_complex", graph]
    command += ["-fps_mode", "passthrough", "-bsf:v", "setts=ts=N", "-f", "yuv4mpegpipe", "-strict", "-1", "pipe:1"]
    try:
        done = subprocess.run(
            command, input=b"".join(map(_flat, _COLOURS)), capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"version {version} does not run: {error}"
    pictures = done.stdout.split(b"FRAME\n")[1:]
    if done.returncode != 0 or len(pictures) != len(_COLOURS):
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        return f"version {version} cannot convert a small picture: {said[-1]}"
    places = (0, _SIDE**2, _SIDE**2 + (_SIDE // 2) ** 2)
    for picture, colour in zip(pictures, _COLOURS.values(), strict=True):
        got = tuple(picture[place] for place in places)
        if max(abs(one - other) for one, other in zip(got, colour, strict=True)) > _TOLERANCE:
            return f"version {version} gives wrong colours: Y, U, V {got} instead of {colour}"
    return ""


@cache
def ffmpeg_executable() -> str:
    """Path of the ffmpeg to run. It is checked once in a process; if the one on the PATH is not used, that is said.

    Raises:
        UserError: neither the one on the PATH nor imageio-ffmpeg's can be used; the message says why.
    """
    on_path = shutil.which("ffmpeg")
    refused = "there is no ffmpeg on the PATH" if on_path is None else _problem(on_path)
    if on_path is not None and not refused:
        return on_path
    try:
        bundled: str = imageio_ffmpeg.get_ffmpeg_exe()
        why = _problem(bundled)
    except RuntimeError as error:
        bundled, why = "imageio-ffmpeg", str(error)
    if why:
        raise UserError(
            f"No ffmpeg can be used. {on_path or 'PATH'}: {refused}; {bundled}: {why}. Install ffmpeg "
            f"{'.'.join(map(str, _OLDEST))} or newer."
        )
    if on_path is not None:
        print(f"{on_path} is not used: {refused}. {bundled} is used instead.", file=sys.stderr)
    return bundled


def ffmpeg_version() -> str:
    """The version as ffmpeg prints it (``7.0.2-static``), for the provenance of what it made.

    Raises:
        UserError: there is no ffmpeg that can be used.
    """
    return _version(ffmpeg_executable())

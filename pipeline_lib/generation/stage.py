"""Writes a generated data set: H.264 videos, their lists, and a marker that the folder is complete."""

import io
import struct
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline_lib.artefacts.atomic import named_faults, write_bytes
from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.layout import GENERATED
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import distribution_versions
from pipeline_lib.artefacts.sealing import read_sealed_json, write_sealed_json
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.configuration.data import Generated
from pipeline_lib.errors import UserError
from pipeline_lib.generation.videos import SUBSETS, Scene, draw_scene, render, true_flow
from pipeline_lib.media.ffmpeg import ffmpeg_executable, ffmpeg_version

MARKER = GENERATED
"""The file that is written last, with the digest of every other file; without it a folder is not complete."""
MODULES = ("pipeline_lib.generation.stage",)
"""The modules that the fingerprint of a generated data set covers."""

# One thread and no version strings, so that the bytes depend only on the frames and the encoder.
_ENCODE = (
    *("-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-threads", "1"),
    *("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart", "-f", "mp4"),
)


def _turn_display(video: bytes) -> bytes:
    """Set the display matrix of an mp4's only track to a clockwise quarter turn (ISO/IEC 14496-12, 8.3.2)."""
    position = video.index(b"tkhd") + 4
    # Version 0 has 32-bit times, version 1 has 64-bit ones; the matrix follows 16 further bytes.
    matrix = position + 4 + (20 if video[position] == 0 else 32) + 16
    turned = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    return video[:matrix] + turned + video[matrix + len(turned) :]


def encode(
    frames: npt.NDArray[np.uint8], frames_per_second: int, rotated: bool, path: Path, executable: str | Path
) -> None:
    """Encode a video as H.264 in an mp4, atomically.

    Args:
        frames: (T, H, W, 3) RGB in display orientation, H and W even.
        frames_per_second: rate.
        rotated: store the frames turned, with a rotation flag by which players turn them back.
        path: of the mp4.
        executable: the ffmpeg to run.

    Raises:
        UserError: ffmpeg fails, for example because it was built without libx264.
    """
    if rotated:
        frames = np.ascontiguousarray(np.rot90(frames, axes=(1, 2)))
    height, width = frames.shape[1:3]
    temporary = path.with_name(f".{path.name}.encoding")
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}")
    command = [str(executable), "-nostdin", "-v", "error", "-y", *source, "-framerate", str(frames_per_second)]
    result = subprocess.run(
        [*command, "-i", "pipe:0", *_ENCODE, str(temporary)], input=frames.tobytes(), capture_output=True, check=False
    )
    if result.returncode != 0:
        temporary.unlink(missing_ok=True)
        # ffmpeg may have found no room. Then the same bytes find none either, and that error says it better.
        with named_faults(path):
            temporary.write_bytes(frames.tobytes())
        temporary.unlink()
        raise UserError(
            f"{executable} could not encode {path}: {result.stderr.decode(errors='replace').strip()}. The generated "
            "data set needs an ffmpeg with libx264; the one that the package imageio-ffmpeg brings has it: take the "
            "other ffmpeg off the PATH."
        )
    content = temporary.read_bytes()
    temporary.unlink()
    write_bytes(path, _turn_display(content) if rotated else content)


def write_flow(scene: Scene, path: Path) -> None:
    """Write a scene's true flow as ``.npz``: ``flow`` float32 (T − 1, H, W, 2) in pixels, ``valid`` bool."""
    flow, valid = true_flow(scene)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, flow=flow, valid=valid)
    write_bytes(path, buffer.getvalue())


def video_path(subset: str, index: int) -> str:
    """A video's path in the folder; it does not tell the class."""
    return f"{subset}/{subset}_{index:06d}.mp4"


def generate(name: str, generated: Generated, output: Path, num_threads: int = 1, flow: bool = False) -> dict[str, Any]:
    """Make a generated data set.

    Writes ``train/*.mp4``, ``validation/*.mp4``, then ``train.csv`` and ``validation.csv`` (columns ``path``,
    relative to the file, and ``label``), and last ``generated.json`` with the digest of all of them.

    Args:
        name: the data set's, for messages.
        generated: its parameters.
        output: folder.
        num_threads: videos made at a time; the bytes do not depend on it.
        flow: also write ``flow/{subset}/*.npz``, the true flow of every frame pair.

    Returns:
        The content of ``generated.json``.

    Raises:
        UserError: ffmpeg is missing or cannot encode, or another process writes the folder.
    """
    executable = ffmpeg_executable()
    sizes = {"train": generated.num_train, "validation": generated.num_validation}
    lists = {subset: output / f"{subset}.csv" for subset in SUBSETS}
    cv2.setNumThreads(1)

    def make(subset: str, index: int) -> tuple[str, str, dict[str, str]]:
        scene = draw_scene(generated, subset, index)
        path = video_path(subset, index)
        encode(render(scene), scene.frames_per_second, scene.rotated, output / path, executable)
        digests = {path: file_digest(output / path)}
        if flow:
            flow_path = f"flow/{Path(path).with_suffix('.npz')}"
            write_flow(scene, output / flow_path)
            digests[flow_path] = file_digest(output / flow_path)
        return path, scene.label, digests

    with Stage("generate", MODULES, output / MARKER, lists.values()) as stage:
        if stage.is_finished(
            generated.model_dump(mode="json") | {"flow": flow},
            {},
            {"ffmpeg": ffmpeg_version()} | distribution_versions(["numpy", "opencv-contrib-python-headless"]),
        ):
            content = read_sealed_json(output / MARKER)
            if all((output / path).is_file() for path in content["files"]):
                return content
        for stale in (output / MARKER, *lists.values()):
            stale.unlink(missing_ok=True)
        digests: dict[str, str] = {}
        rows = {subset: ["path,label"] for subset in SUBSETS}
        jobs = [(subset, index) for subset in SUBSETS for index in range(sizes[subset])]
        pool = ThreadPoolExecutor(num_threads)
        try:
            with Progress(f"generate {name}", len(jobs), "videos") as progress:
                for (subset, _), (path, label, made) in zip(
                    jobs, pool.map(make, *zip(*jobs, strict=True)), strict=True
                ):
                    rows[subset].append(f"{path},{label}")
                    digests |= made
                    progress.advance()
        finally:
            # Otherwise an error or an interrupt would wait for every video that is still queued.
            pool.shutdown(cancel_futures=True)
        _remove_other_files(output, digests)
        for subset, listing in lists.items():
            write_bytes(listing, ("\n".join(rows[subset]) + "\n").encode())
            digests[listing.name] = file_digest(listing)
        marker = {"provenance": stage.record, "files": dict(sorted(digests.items()))}
        write_sealed_json(output / MARKER, marker)
        stage.finish({"videos": len(jobs)}, [output / path for path in digests])
    return marker


def _remove_other_files(output: Path, digests: Mapping[str, str]) -> None:
    """Delete videos and flow of an earlier, larger or interrupted run."""
    for folder in (*SUBSETS, "flow"):
        for path in sorted((output / folder).rglob("*")):
            if path.is_file() and path.relative_to(output).as_posix() not in digests:
                path.unlink()

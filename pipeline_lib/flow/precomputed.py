"""Packs flow that was computed elsewhere: 8-bit images beside the frames of a data set of folders.

denseflow, MMAction2's tools and TSN's dense_flow write u and v as images of their own: byte = 255 · (value + bound) /
(2 · bound), rounded or cut off. So the bytes 127 and 128 both stand for no motion. Here the middle of each byte's
interval is quantised as ``pipeline_lib.flow.quantisation`` says. At the size and bound of the images bytes from 128 on
stay and those below go up by one: no motion is exactly 128 again, and negating a value is q → 256 − q.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import torch

from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import content_digest, distribution_versions
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.messages import parsed
from pipeline_lib.configuration.motions import PrecomputedParameters
from pipeline_lib.configuration.specification import MotionSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.flow.code import motion_modules
from pipeline_lib.flow.quantisation import Quantisation, encode_image, stack_channels
from pipeline_lib.manifests.content import digest_as
from pipeline_lib.manifests.frame_folders import read_frame_folder
from pipeline_lib.manifests.shard_lists import read_shard_list, videos_digest
from pipeline_lib.media.shards import Shard, ShardPart, ShardVideo


def create(kind: Motion, device: torch.device, num_threads: int) -> NoReturn:
    """Refuse to compute it.

    Raises:
        UserError: always.
    """
    del kind, device, num_threads
    raise UserError(
        "The network sees flow that was read from files (motion method `precomputed`); no video gives it. "
        "Train it on a motion kind such as `tvl1` to use it on videos, or use the student that it teaches."
    )


class _UnusableError(Exception):
    """A video's flow cannot be used; the message is the reason that the shard stores."""


def _flow_files(
    video: ShardVideo, listed: Mapping[str, Any] | None, kind: Motion, count: str
) -> list[tuple[Path, Path]]:
    """The images of u and v, as many as the video has rows to be read."""
    path = Path("" if listed is None else listed["path"])
    if listed is None or not path.is_dir():
        raise _UnusableError("missing: it is no folder of images")
    if listed.get("digest") and digest_as(listed["digest"], path) != listed["digest"]:
        raise _UnusableError("changed: its files are not those that the manifest found; build the manifest again")
    folder = read_frame_folder(path)
    if folder.problem:
        raise _UnusableError(folder.problem)
    if not folder.flow_x:
        raise _UnusableError(
            "missing flow: the folder holds no flow_x_ and flow_y_ images (nor x_ and y_, nor u and v)"
        )
    wanted = video.num_frames - (abs(kind.gap) if count == "pairs" else 0)
    if len(folder.flow_x) != wanted:
        raise _UnusableError(
            f"counts disagree: {len(folder.flow_x)} flow images for {video.num_frames} frames; `count: {count}` at gap "
            f"{kind.gap} means {wanted}"
        )
    return list(zip(folder.flow_x, folder.flow_y, strict=True))


def read_flow(files: Sequence[Path], bound: float) -> np.ndarray:
    """One flow field: float32 (2, H, W), u and v in pixels of the images.

    Args:
        files: the images of u and of v.
        bound: that they were written with.

    Raises:
        _UnusableError: an image cannot be decoded, or the two differ in size.
    """
    planes = []
    for file in files:
        plane = cv2.imdecode(np.frombuffer(file.read_bytes(), dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        if plane is None:
            raise _UnusableError(f"undecodable: {file.name}")
        planes.append(plane)
    if planes[0].shape != planes[1].shape:
        raise _UnusableError(f"unequal sizes: {files[0].name} and {files[1].name}")
    values: np.ndarray = (np.stack(planes).astype(np.float32) * 2 - 255) / 255 * np.float32(bound)
    return values


def resized_flow(flow: np.ndarray, height: int, width: int) -> np.ndarray:
    """Flow at the size of the stored frames: the area's mean, and vectors in its pixels.

    Args:
        flow: float32 (2, H, W).
        height: of the stored frames.
        width: of the stored frames.

    Raises:
        _UnusableError: the images are smaller than the frames, or have another aspect.
    """
    own_height, own_width = flow.shape[1:]
    if (own_height, own_width) == (height, width):
        return flow
    # One side is scaled to whole pixels by the factor of the other.
    misfit = abs(own_width * height - own_height * width)
    if own_height < height or own_width < width or misfit > max(own_height, own_width):
        raise _UnusableError(f"unequal sizes: flow of {own_width}×{own_height} for frames of {width}×{height}")
    planes = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in flow]
    factors = np.array([width / own_width, height / own_height], dtype=np.float32)
    scaled: np.ndarray = np.stack(planes) * factors[:, None, None]
    return scaled


def pack_motion(
    specification: MotionSpecification,
    frames: Path,
    videos: Path,
    output: Path,
    num_threads: int,
    maximum_loss_share: float = 1.0,
) -> dict[str, Any]:
    """Make a motion shard from the flow images beside a shard's frames; continues after the videos that are done.

    Where a video has a flow image for each pair of frames, the rows of the frames without a pair repeat their nearest
    neighbour, as where flow is computed. Images of u and v become one grey JPEG, so that they are encoded once more, at
    the kind's ``jpeg_quality``.

    Args:
        specification: the motion kind, of the method ``precomputed``.
        frames: the frames shard, whose rows the motion belongs to.
        videos: ``shards/{shard}.json`` of the manifest, which says where the images lie.
        output: path of the motion shard.
        num_threads: images that are read and encoded at a time.
        maximum_loss_share: share of the shard's videos that may fail, in [0, 1].

    Returns:
        Figures of this run; none if the shard was finished before.

    Raises:
        UserError: too many videos fail, or the bound of the images is not named.
    """
    kind = specification.motion_kind
    values = parsed(PrecomputedParameters, kind.parameters, f"motion {specification.motion}: parameters")
    quantisation = Quantisation(kind.channels, kind.bound)
    listed = read_shard_list(videos)
    repeated = abs(kind.gap) if values.count == "pairs" else 0
    side = "end" if kind.gap > 0 else "start"
    with Stage("extract_motion", motion_modules(kind), output) as stage:
        shard = Shard(frames)
        if stage.is_finished(
            {
                "motion": kind.model_dump(),
                "method_parameters": values.model_dump(),
                "quantisation": quantisation.attributes(),
                "gap": kind.gap,
                "boundary": {"rows": repeated, "side": side, "rule": "nearest row repeated"},
            },
            {frames: content_digest(frames), videos: videos_digest(listed)},
            distribution_versions(["torch", "simplejpeg", "opencv-contrib-python-headless"]),
        ):
            return {}
        start, num_rows = time.perf_counter(), 0
        of_id = {video["id"]: video for video in listed}

        def row(files: tuple[Path, Path], video: ShardVideo) -> bytes:
            flow = resized_flow(read_flow(files, values.written_bound), video.height, video.width)
            image = stack_channels(quantisation.quantise(torch.from_numpy(flow[None])))[0].numpy()
            return encode_image(image, kind.jpeg_quality)

        with ShardPart(output, stage.record["digest"]) as part:
            resumed, done = part.resumed, part.done
            label = f"{specification.motion} {specification.dataset}"
            with (
                ThreadPoolExecutor(num_threads) as pool,
                Progress(label, len(shard.videos), "videos", resumed) as progress,
            ):
                for video in shard.videos:
                    if video.id in done:
                        continue
                    try:
                        files = _flow_files(video, of_id.get(video.id), kind, values.count)
                        rows = list(pool.map(row, files, [video] * len(files)))
                    except _UnusableError as reason:
                        part.reject(video.id, str(reason))
                        print(f"{video.id}: {reason}", file=sys.stderr)
                    except OSError as error:
                        raise UserError(
                            f"{of_id[video.id]['path']} cannot be read: {error.strerror}. Run the same command again "
                            "when the file system answers."
                        ) from error
                    else:
                        num_rows += len(rows)
                        rows = rows + rows[-1:] * repeated if kind.gap > 0 else rows[:1] * repeated + rows
                        part.append(video.id, rows, video.height, video.width, video.frames_per_second)
                    progress.advance()
            part.check_rejects(
                len(shard.videos), maximum_loss_share, f"datasets.{specification.dataset}.maximum_loss_share"
            )
            part.finish(stage.record, [video.id for video in shard.videos])
        seconds = time.perf_counter() - start
        figures = {
            "pairs": num_rows,
            "pairs_per_second": round(num_rows / seconds, 2) if seconds else 0.0,
            "videos_resumed": resumed,
        }
        stage.finish(figures)
        return figures

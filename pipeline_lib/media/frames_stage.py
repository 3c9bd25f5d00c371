"""The frames stage: decodes the videos of a shard once and stores their frames as JPEGs in a packed shard."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simplejpeg

from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import distribution_versions
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.configuration.specification import FramesSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.content import JPEG_START, digest_as, not_regular
from pipeline_lib.manifests.frame_folders import FrameFolder, read_frame_folder
from pipeline_lib.manifests.shard_lists import read_shard_list, videos_digest
from pipeline_lib.media.decoder import DecodingError, DecodingOptions, RawFrames, check_clock, decode_video
from pipeline_lib.media.ffmpeg import ffmpeg_executable, ffmpeg_version
from pipeline_lib.media.shards import ShardPart

MODULES = ("pipeline_lib.media.frames_stage",)

# The bounds of one video: nine hours at 30 frames a second, 4 GiB of JPEGs in memory, JPEG's largest side.
_MAXIMUM_FRAMES = 1_000_000
_MAXIMUM_BYTES = 4 << 30
_MAXIMUM_SIDE = 65_500
# Readers decode any of these to RGB.
_STORED_COLOURS = frozenset({"YCbCr", "Gray"})


@dataclass(frozen=True)
class EncodedVideo:
    """One video's frames as JPEGs; ``height`` and ``width`` are theirs, pixels."""

    frames: list[bytes]
    height: int
    width: int
    frames_per_second: float


def extract_video(video: Mapping[str, Any], specification: FramesSpecification, num_threads: int = 1) -> EncodedVideo:
    """Decode one video and encode its frames.

    Args:
        video: an entry of a shard list: ``path``, optionally ``digest``, ``start`` and ``end`` (seconds), ``stream``
            and ``frames_per_second``; of a folder of images ``images_per_second``.
        specification: size, rate and quality.
        num_threads: of ffmpeg's decoder; the frames do not depend on it.

    Raises:
        DecodingError: the video cannot be used, or is no longer the one of the digest; the message is the reason.
        UserError: the machine does not let it be read, which says nothing about the video.
    """
    options = DecodingOptions(
        specification.frames.short_side,
        specification.frames.frames_per_second,
        specification.on_decode_error == "keep",
        video.get("start"),
        video.get("end"),
        num_threads,
        stream=video.get("stream", 0),
        images_per_second=video.get("images_per_second"),
    )
    path = Path(video["path"])
    try:
        found = _identity(path)
        unusual = not_regular(path)
        if unusual:
            raise DecodingError(unusual)
        recorded = video.get("digest")
        if recorded and digest_as(recorded, path) != recorded:
            raise DecodingError("changed: its bytes are not those that the manifest found; build the manifest again")
        if options.frames_per_second is not None and video.get("num_frames") is None and not path.is_dir():
            # The manifest has counted no frames, so it has not seen the video's clock.
            check_clock(path, options)
        encoded = _kept_images(read_frame_folder(path), options) if path.is_dir() else None
        if encoded is None:
            with decode_video(path, options) as raw:
                frames = _encode(raw, specification)
            encoded = EncodedVideo(frames, raw.height, raw.width, _rate(raw, video, options))
        if _identity(path) != found:
            raise DecodingError("changed: the file was written while it was decoded; build the manifest again")
    except FileNotFoundError:
        raise DecodingError("missing: the file is gone since the manifest was made") from None
    except OSError as error:
        # Not a verdict on the video, so it must not become a row of the shard.
        raise UserError(
            f"{path} cannot be read: {error.strerror}. Run the same command again when the file system answers, or "
            "build the manifest again, which rejects the video."
        ) from error
    if not encoded.frames:
        raise DecodingError("undecodable: ffmpeg gives no frame")
    return encoded


def _rate(raw: RawFrames, video: Mapping[str, Any], options: DecodingOptions) -> float:
    """Frames a second of a decoded video; 0 if nobody knows it."""
    if Path(video["path"]).is_dir() and options.frames_per_second is None:
        return options.images_per_second or 0.0
    return raw.frames_per_second or float(video.get("frames_per_second") or 0.0)


def _kept_images(folder: FrameFolder, options: DecodingOptions) -> EncodedVideo | None:
    """The bytes of a folder's images where they are what the stage would store: JPEGs, small enough, at the rate.

    Another compression would only lose. Otherwise None: ffmpeg decodes, scales and encodes them.

    Raises:
        DecodingError: the folder cannot be used, a JPEG is damaged, or sizes differ.
    """
    if folder.problem:
        raise DecodingError(folder.problem)
    if options.frames_per_second is not None and options.images_per_second is None:
        raise DecodingError("unknown rate: set the data set's frames_per_second, or none for the frame format")
    if options.frames_per_second not in (None, options.images_per_second):
        return None
    if len(folder.frames) > _MAXIMUM_FRAMES:
        raise DecodingError(f"too long: more than {_MAXIMUM_FRAMES} frames")
    if sum(image.stat().st_size for image in folder.frames) > _MAXIMUM_BYTES:
        raise DecodingError(f"too long: its frames take more than {_MAXIMUM_BYTES >> 30} GiB")
    frames: list[bytes] = []
    first: tuple[int, int] | None = None
    for image in folder.frames:
        data = image.read_bytes()
        if not data.startswith(JPEG_START):
            return None
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if min(height, width) > options.short_side or colours not in _STORED_COLOURS:
                return None
            # Luma alone takes half the time of colours, and all of a JPEG has to be there for it.
            simplejpeg.decode_jpeg(data, colorspace="GRAY")
        except ValueError as error:
            if options.keep_damaged:
                return None
            raise DecodingError(f"damaged packet: {image.name}: {error}") from None
        first = first or (height, width)
        if (height, width) != first:
            raise DecodingError(f"unequal sizes: {image.name} is {width}×{height}, the first is {first[1]}×{first[0]}")
        frames.append(data)
    assert first is not None
    return EncodedVideo(frames, *first, options.images_per_second or 0.0)


def _identity(path: Path) -> tuple[int, int, int]:
    """Inode, size and time of the last change: another file, or other bytes, have others."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _encode(raw: RawFrames, specification: FramesSpecification) -> list[bytes]:
    """The frames as JPEGs; a frame that is equal to the one before takes no memory of its own.

    Raises:
        DecodingError: the video is larger or longer than any real one.
    """
    if max(raw.height, raw.width) > _MAXIMUM_SIDE:
        raise DecodingError(f"too large: {raw.width}×{raw.height}, a JPEG holds at most {_MAXIMUM_SIDE} pixels a side")
    frames: list[bytes] = []
    num_bytes = 0
    for planes in raw:
        jpeg = simplejpeg.encode_jpeg_yuv_planes(*planes, specification.frames.jpeg_quality)
        if frames and jpeg == frames[-1]:
            jpeg = frames[-1]
        else:
            num_bytes += len(jpeg)
        frames.append(jpeg)
        if len(frames) > _MAXIMUM_FRAMES:
            raise DecodingError(f"too long: more than {_MAXIMUM_FRAMES} frames")
        if num_bytes > _MAXIMUM_BYTES:
            raise DecodingError(f"too long: its frames take more than {_MAXIMUM_BYTES >> 30} GiB")
    return frames


def _results(
    videos: Sequence[Mapping[str, Any]], specification: FramesSpecification, num_workers: int
) -> Iterator[tuple[str, EncodedVideo | DecodingError]]:
    """Extract videos in parallel; yields each as it finishes, with never more than a few in memory."""
    # If there are fewer videos than threads, the decoders share the threads.
    num_threads = max(1, num_workers // max(1, len(videos)))
    waiting = iter(videos)
    with ThreadPoolExecutor(num_workers) as executor:
        running: dict[Future[EncodedVideo], str] = {}
        try:
            while True:
                while len(running) < num_workers + 1 and (video := next(waiting, None)) is not None:
                    running[executor.submit(extract_video, video, specification, num_threads)] = video["id"]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    id = running.pop(future)
                    try:
                        yield id, future.result()
                    except DecodingError as error:
                        yield id, error
        finally:
            executor.shutdown(cancel_futures=True)


def extract_frames(
    specification: FramesSpecification,
    shard_list: Path,
    output: Path,
    num_workers: int,
    maximum_loss_share: float = 1.0,
) -> None:
    """Make a frames shard; continues after the videos that an interrupted run had finished.

    The record names a video by the digest of its bytes and not by its path, so that moved files keep their frames. A
    manifest without probing has no digests; there the path is used.

    Args:
        specification: the frame format and what becomes of damaged videos.
        shard_list: ``shards/{shard}.json`` of the manifest.
        output: the ``.h5`` file.
        num_workers: videos decoded at a time.
        maximum_loss_share: share of the shard's videos that may be unusable, in [0, 1]. It is not part of the
            specification, because it changes no frame.

    Raises:
        UserError: too many videos are unusable, the shard list or a video cannot be read, another process is making
            the shard, or the disk is full.
    """
    videos = read_shard_list(shard_list)
    with Stage("extract_frames", MODULES, output) as stage:
        if stage.is_finished(
            specification.model_dump(mode="json"),
            {shard_list: videos_digest(videos)},
            {"ffmpeg": ffmpeg_version()}
            | distribution_versions(["opencv-contrib-python-headless", "simplejpeg", "h5py"]),
        ):
            return
        num_frames = 0
        print(f"frames {output.stem}: decoded by ffmpeg {ffmpeg_version()} ({ffmpeg_executable()})", file=sys.stderr)
        with ShardPart(output, stage.record["digest"]) as part:
            done, resumed = part.done, part.resumed
            left = [video for video in videos if video["id"] not in done]
            with Progress(f"frames {output.stem}", len(videos), "videos", initial=resumed) as progress:
                for id, result in _results(left, specification, max(1, num_workers)):
                    if isinstance(result, EncodedVideo):
                        num_frames += len(result.frames)
                        part.append(id, result.frames, result.height, result.width, result.frames_per_second)
                    else:
                        part.reject(id, str(result))
                        print(f"{id}: {result}", file=sys.stderr)
                    progress.advance()
            part.check_rejects(len(videos), maximum_loss_share, f"datasets.{specification.dataset}.maximum_loss_share")
            num_rejected = len(part.rejected)
            part.finish(stage.record, [video["id"] for video in videos])
        stage.finish(
            {
                "videos": len(videos),
                "videos_resumed": resumed,
                "videos_rejected": num_rejected,
                "frames": num_frames,
                "bytes": output.stat().st_size,
                "workers": num_workers,
            }
        )

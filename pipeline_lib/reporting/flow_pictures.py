"""Frames beside their motion, as small pictures in the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import simplejpeg

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.sealing import DamageError
from pipeline_lib.artefacts.tables import read_table
from pipeline_lib.errors import UserError
from pipeline_lib.flow.colour import flow_to_rgb
from pipeline_lib.flow.quantisation import Quantisation, decode_image
from pipeline_lib.media.shards import Shard
from pipeline_lib.reporting.collect import Report

NUM_VIDEOS = 4
MOMENTS = (0.25, 0.5, 0.75)
PICTURE_HEIGHT = 112


@dataclass(frozen=True)
class Picture:
    """One picture as a data URI, with its size on the page in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """Moments of one video: frames and the motion from each."""

    id: str
    labels: str
    longest: float
    """Length that has full saturation, pixels."""
    moments: list[tuple[int, Picture, Picture]]
    shards: tuple[Path, Path]
    """The frames and the motion."""


@dataclass(frozen=True)
class Gallery:
    """Videos of one data set with one kind of motion."""

    dataset: str
    motion: str
    strips: list[Strip]
    unit: str = "px"


def picture(image: np.ndarray, height: int = PICTURE_HEIGHT, photo: bool = False) -> Picture:
    """An RGB image (H, W, 3) uint8 as a data URI: JPEG for photographs, PNG for the rest."""
    scale = height / image.shape[0]
    width = max(1, round(image.shape[1] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    kind = "jpeg" if photo else "png"
    parameters = [cv2.IMWRITE_JPEG_QUALITY, 82] if photo else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    encoded = cv2.imencode("." + kind, np.ascontiguousarray(resized[..., ::-1]), parameters)[1]
    return Picture(f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}", width, height)


def colour_wheel_picture(size: int = 120) -> Picture:
    """The legend of flow pictures: the colour at each place is that of the motion from the centre to it."""
    axis = np.linspace(-1.08, 1.08, 2 * size, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    rgb = flow_to_rgb(np.stack([u, v]), maximum=1.0)
    alpha = np.where(np.hypot(u, v) <= 1, 255, 0).astype(np.uint8)
    image = np.dstack([rgb[..., ::-1], alpha])
    encoded = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    return Picture(f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode()}", size, size)


def motion_picture(values: np.ndarray, longest: float) -> np.ndarray:
    """Motion (C, H, W) as RGB (H, W, 3): flow by the colour wheel, one channel in grey."""
    if len(values) == 2:
        return flow_to_rgb(values, maximum=longest)
    grey = np.clip(np.abs(values[0]) / max(longest, 1e-6), 0, 1)
    return np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=-1)


def _chosen(layout: Layout, dataset: str) -> pd.DataFrame:
    """Accepted validation videos by id, one of each class in turn."""
    table: pd.DataFrame = read_table(
        layout.manifest(dataset), ["id", "labels", "subset_1", "status", "shard"]
    ).to_pandas()
    table = table[(table["status"] == "accepted") & (table["subset_1"] == "validation")].sort_values("id")
    table["label"] = [", ".join(labels) for labels in table["labels"]]
    table["turn"] = table.groupby("label").cumcount()
    return table.sort_values(["turn", "label", "id"])


def gallery(layout: Layout, dataset: str, frame_format: str, motion: str) -> Gallery | None:
    """Pictures of a data set's motion, or None if its shards have been deleted."""
    strips: list[Strip] = []
    unit = "px"
    for row in _chosen(layout, dataset).itertuples():
        if len(strips) == NUM_VIDEOS:
            break
        paths: Sequence[Path] = (
            layout.frames(dataset, frame_format, str(row.shard)),
            layout.motion(dataset, frame_format, motion, str(row.shard)),
        )
        if not all(path.is_file() for path in paths):
            continue
        try:
            frames, motions = (Shard(path) for path in paths)
            if row.id not in frames.index or row.id not in motions.index:
                continue
            quantisation = Quantisation.from_record(motions.record)
            strips.append(_strip(frames, motions, quantisation, str(row.id), str(row.label)))
            unit = quantisation.unit
            frames.close()
            motions.close()
        except DamageError:
            raise
        except (UserError, KeyError, ValueError):
            continue
    return Gallery(dataset, motion, strips, unit) if strips else None


def _strip(frames: Shard, motions: Shard, quantisation: Quantisation, id: str, labels: str) -> Strip:
    video = frames.videos[frames.index[id]]
    indices = sorted({int(moment * (video.num_frames - 1)) for moment in MOMENTS})
    values = {}
    images = {}
    for index in indices:
        images[index] = simplejpeg.decode_jpeg(frames.read(frames.index[id], index, index + 1)[0], colorspace="RGB")
        jpeg = motions.read(motions.index[id], index, index + 1)[0]
        values[index] = quantisation.dequantise(decode_image(jpeg, video.height))
    lengths = np.concatenate([np.sqrt((value**2).sum(axis=0)).ravel() for value in values.values()])
    longest = max(float(np.quantile(lengths, 0.995)), 0.5)
    moments = [
        (index, picture(images[index], photo=True), picture(motion_picture(values[index], longest)))
        for index in indices
    ]
    return Strip(id, labels, longest, moments, (frames.path, motions.path))


def galleries(report: Report) -> list[Gallery]:
    """Pictures of every motion kind that the report's experiments or their teachers see."""
    places = dict.fromkeys(
        (experiment.dataset, experiment.frame_format, experiment.motion)
        for experiment in report.specification.experiments
        if experiment.motion is not None and experiment.frame_format is not None
    )
    found = []
    for dataset, frame_format, motion in places:
        assert frame_format is not None
        assert motion is not None
        shown = gallery(report.layout, dataset, frame_format, motion)
        if shown is not None:
            found.append(shown)
    return found

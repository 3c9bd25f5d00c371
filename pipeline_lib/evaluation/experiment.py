"""A trained experiment in Python: its predictions and features of any video (``from pipeline_lib import load``)."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.configuration.data import FrameFormat
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.gradcam import GradCam, Over, grad_cam
from pipeline_lib.evaluation.prediction import (
    Prediction,
    array_rate,
    clip_features,
    clip_probabilities,
    find_weights,
    frame_format_of,
    indexed,
)
from pipeline_lib.evaluation.public import FRAMES, find_imported, holds_public, is_public, load_public
from pipeline_lib.evaluation.stream import predict_stream, stored_frames, window_length
from pipeline_lib.evaluation.trained import TrainedNetwork, load_trained


@dataclass(frozen=True)
class TrainedExperiment:
    """One trained network, ready for videos.

    A video is a file that ffmpeg decodes, or its frames: uint8 (T, H, W, 3), RGB. A network that sees flow gets the
    flow that its training saw, computed here.

    Attributes:
        trained: the network (``trained.network``), its classes and the specification of its training.
        frame_format: how its training's frames were scaled and stored.
        num_threads: for decoding and flow.
    """

    trained: TrainedNetwork
    frame_format: FrameFormat
    num_threads: int = 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.trained.classes

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Names of the activations that ``features`` can take, from the pixels to the logits."""
        return tuple(self.trained.network.endpoints)  # type: ignore[arg-type]

    def _indexed(
        self, video: str | Path | np.ndarray, frames_per_second: float | None
    ) -> AbstractContextManager[ClipIndex]:
        return indexed(video, self.trained.specification, self.frame_format, self.num_threads, frames_per_second)

    def predict(
        self,
        video: str | Path | np.ndarray,
        num_clips: int | Literal["all_frames"] = 10,
        num_crops: Literal[1, 3] = 1,
        frames_per_second: float | None = None,
    ) -> Prediction:
        """The probability of every class: the mean over clips.

        Args:
            video: a file, or frames, uint8 (T, H, W, 3).
            num_clips: uniformly spaced clips, or one clip of all frames.
            num_crops: 1 (the centre) or 3 crops of each.
            frames_per_second: of an array of frames (a file says its own); None takes the rate of the training's
                frames, or else that at which the recipe counts strides.

        Raises:
            UserError: the file cannot be read, or the array is no video.
        """
        protocol = Protocol(num_clips=num_clips, num_crops=num_crops)
        with self._indexed(video, frames_per_second) as index:
            probabilities = clip_probabilities(self.trained, index, protocol)
            video_frames = int(index.video_frames[0])
        return Prediction(self.classes, probabilities.mean(axis=0), len(probabilities), video_frames)

    def features(
        self,
        video: str | Path | np.ndarray,
        endpoint: str,
        num_clips: int | Literal["all_frames"] = 1,
        num_crops: Literal[1, 3] = 1,
        frames_per_second: float | None = None,
    ) -> torch.Tensor:
        """Activations at an endpoint: float32 (clips, C, T, H, W) on the CPU; of ``logits`` (clips, classes).

        Args:
            video: a file, or frames, uint8 (T, H, W, 3).
            endpoint: one of ``endpoints``.
            num_clips: uniformly spaced clips, or one clip of all frames.
            num_crops: 1 (the centre) or 3 crops of each.
            frames_per_second: of an array of frames (a file says its own); None takes the rate of the training's
                frames, or else that at which the recipe counts strides.

        Raises:
            UserError: no such endpoint, the file cannot be read, or the array is no video.
        """
        self.trained.network.check_names([endpoint])  # type: ignore[operator]
        protocol = Protocol(num_clips=num_clips, num_crops=num_crops)
        with self._indexed(video, frames_per_second) as index:
            return clip_features(self.trained, index, protocol, endpoint)

    def gradcam(
        self,
        video: str | Path | np.ndarray,
        class_name: str | None = None,
        endpoint: str | None = None,
        num_clips: int | Literal["all_frames"] = 1,
        over: Over = "space",
        frames_per_second: float | None = None,
    ) -> GradCam:
        """Grad-CAM: where in a video the network sees what speaks for a class (docs/gradcam.md).

        Args:
            video: a file, or frames, uint8 (T, H, W, 3).
            class_name: one of ``classes``; None is the one that the network predicts.
            endpoint: one of ``endpoints`` with an extent in space; None is the deepest with at least 4×4 positions.
            num_clips: uniformly spaced clips (1 is the middle one), or ``all_frames``, one clip of the whole video.
            over: ``space`` weights the channels at each time step, ``space_time`` alike at all of them.
            frames_per_second: of an array of frames (a file says its own); None takes the rate of the training's
                frames, or else that at which the recipe counts strides.

        Raises:
            UserError: the network has no classifier, no such class or endpoint, the endpoint has no extent in space,
                the file cannot be read, or the array is no video.
        """
        protocol = Protocol(num_clips=num_clips)
        with self._indexed(video, frames_per_second) as index:
            return grad_cam(self.trained, index, protocol, class_name, endpoint, over)

    def stream(
        self,
        frames: Iterable[np.ndarray],
        every: int | None = None,
        window: int | None = None,
        num_clips: int = 1,
        frames_per_second: float | None = None,
    ) -> Iterator[Prediction]:
        """Predictions of frames that keep coming, of a camera for example: a window slides over them.

        The first prediction comes when the window is full, the next ones ``every`` frames later; ``last_frame`` of each
        says up to where it has seen. If the frames end before, there is one prediction of what has come. Only the
        window is kept, encoded, so that the memory does not grow. A network that sees flow gets the window's flow.

        Args:
            frames: uint8 (H, W, 3), RGB, all of one size.
            every: frames between two predictions; None is half a window.
            window: frames that a prediction sees; None is as many as a clip of the training spans.
            num_clips: uniformly spaced clips of the window.
            frames_per_second: of ``frames``; None takes the rate of the training's frames, or else that at which the
                recipe counts strides.

        Raises:
            UserError: ``every`` or ``window`` is less than 1, a frame is no picture, or the training took frames from
                all over a video and no window is given.
        """
        specification, rate = self.trained.specification, self.frame_format.frames_per_second
        given = array_rate(specification, self.frame_format, frames_per_second)
        stored_rate = rate or given
        wanted = None if window is None else round(window * stored_rate / given) if window > 0 else window
        length = window_length(specification, stored_rate, wanted)
        if every is not None and every < 1:
            raise UserError(f"every is {every}; at least 1 frame lies between two predictions.")
        step = every or max(1, round(length * given / stored_rate) // 2)
        stored = stored_frames(frames, self.frame_format, given)
        return predict_stream(
            self.trained, self.frame_format, stored, stored_rate, length, step, num_clips, self.num_threads
        )


def load(
    experiment: str | Path,
    root: str | Path = "output",
    split: int = 1,
    seed: int = 0,
    device: str = "auto",
    short_side: int | None = None,
    num_threads: int = 1,
) -> TrainedExperiment:
    """Load a trained experiment by its name, weights by the path of their file, or a public network by its source.

    Args:
        experiment: name of an experiment, path of a ``.safetensors`` file of a training or of ``weights import``, or a
            source of public weights (``torchvision/r2plus1d_18``), which is imported now if it is not yet.
        root: output root.
        split: of the run, if a name is given.
        seed: of the run, if a name is given.
        device: ``auto``, ``cpu`` or ``cuda``.
        short_side: of the frames, pixels; needed only if the training's frames are no longer below ``root``.
        num_threads: for decoding and flow.

    Raises:
        UserError: it has not been trained, the file is damaged or cannot be fetched, or nothing says how frames were
            scaled.
    """
    layout, name = Layout(Path(root)), str(experiment)
    if Path(experiment).suffix == ".safetensors":
        weights = Path(experiment)
    else:
        weights = find_imported(layout, name) if is_public(name) else find_weights(layout, name, split, seed)
    if holds_public(weights):
        return TrainedExperiment(load_public(weights, device), FRAMES, num_threads)
    trained = load_trained(weights, device)
    return TrainedExperiment(trained, frame_format_of(layout, trained.specification, short_side), num_threads)

"""From what was measured to settings: frames, clips, motion, recipe and networks for a user's own videos.

Each number has one rule, which the file that ``init`` writes states beside it. The rules are those of the demo and of
the papers' fine-tuning, scaled to the videos and to the machine; they are a start that trains, not an optimum.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline_lib.configuration.experiments import IMAGENET, RANDOM
from pipeline_lib.configuration.messages import nearest, parsed
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import INCEPTION, NETWORKS
from pipeline_lib.models.importing.sources import SOURCES
from pipeline_lib.planning.own_videos import Measured, OwnVideos
from pipeline_lib.planning.sharding import shards_for

TEACHERS = {"flow": "tvl1", "tvl1": "tvl1", "farneback": "farneback", "raft": "raft"}
"""What the teacher sees, as it is asked for → the motion method."""
SIZES = ((256, 224), (128, 112), (64, 56))
"""Short sides of stored frames, with the crop that a network sees; pixels."""
RATES = (30.0, 25.0, 24.0, 20.0, 15.0, 12.5, 12.0, 10.0, 8.0, 5.0)
BOUNDS = (4.0, 8.0, 12.0, 20.0, 30.0, 40.0)
PROTOCOLS = ((1.5, "one_clip", 1), (3.0, "two_clips", 2), (7.0, "five_clips", 5), (np.inf, "ten_clips", 10))
MANY_CORES = 16
LEAST_CLIPS = 4
"""Of a batch: fewer clips are too few for batch normalisation."""
CLIP_SECONDS = 2.56
"""A clip spans about this long where the videos do: 64 frames at 25 a second, as in S3D-G and D3D."""
SIDED = re.compile(r"(?i)(?:^|[^a-z])(?:left|right|clockwise|anticlockwise|counterclockwise|cc?w)(?:[^a-z]|$)")


@dataclass(frozen=True)
class Machine:
    """What trains.

    Attributes:
        num_cores: that this process may use.
        has_gpu: whether torch sees one.
    """

    num_cores: int
    has_gpu: bool

    @classmethod
    def here(cls) -> "Machine":
        """This one."""
        import torch

        return cls(len(os.sched_getaffinity(0)), torch.cuda.is_available())

    def __str__(self) -> str:
        return f"{self.num_cores} CPU cores, {'a' if self.has_gpu else 'no'} GPU"


@dataclass(frozen=True)
class Network:
    """A network and what it starts from; ``frames`` and ``side`` are the only clips that it takes, None takes any."""

    name: str
    options: dict[str, Any]
    start: str = RANDOM
    frames: int | None = None
    side: int | None = None


@dataclass(frozen=True)
class Proposal:
    """The settings; sizes in pixels, lengths in stored frames.

    Attributes:
        short_side, frames_per_second: of the stored frames; a rate of None keeps each video's own.
        num_frames, stride, crop: of a clip.
        protocol, num_clips: of the evaluation.
        motion, motion_seen, bound: method; how far pixels were seen to move, and where the stored flow is clipped.
        batch, steps, epochs, base_rate, rate_clips: of the recipe; the rate is meant for ``rate_clips`` clips.
        num_shards, num_threads: jobs per stage, and threads of a training on the CPU.
        horizontal_flip: whether a mirrored clip keeps its class.
        student, teacher: networks.
        endpoint, weight: of the distillation.
        reason: key → the rule behind a number, as a sentence without an end.
    """

    short_side: int
    frames_per_second: float | None
    num_frames: int
    stride: int
    crop: int
    protocol: str
    num_clips: int
    motion: str
    motion_seen: float
    bound: float
    batch: int
    steps: int
    epochs: int
    base_rate: float
    rate_clips: int
    num_shards: int
    num_threads: int
    horizontal_flip: str
    student: Network
    teacher: Network
    endpoint: str
    weight: float
    reason: dict[str, str] = field(default_factory=dict)


def networks_for(start: str, machine: Machine) -> tuple[Network, Network]:
    """The student that fits a start, and a teacher for it.

    Args:
        start: ``random``, ``imagenet``, or public weights such as ``torchvision/s3d``.
        machine: without a GPU, networks that start from random weights have a quarter of the width.

    Raises:
        UserError: there is no such start, or no network for clips starts from it.
    """
    small = {} if machine.has_gpu else {"depth_multiplier": 0.25}
    if start == RANDOM:
        network = Network("s3dg_slim", small)
        return network, network
    if start == IMAGENET:
        network = Network("s3dg_slim", {}, IMAGENET)
        return network, network
    valid = [RANDOM, IMAGENET, *(name for name, source in SOURCES.items() if not source.two_dimensional)]
    name = start.removeprefix("imported/")
    if name not in valid:
        raise UserError(f"--start {start}: there are no such weights to start from. {nearest(start, valid)}")
    source = SOURCES[name]
    kind = NETWORKS[source.model]
    options = parsed(kind.options_model, kind.options | dict(source.options or {}), "model.options")
    student = Network(source.model, dict(source.options or {}), name, options.clip_frames, options.clip_side)
    # Public weights see RGB, so that the flow network of the same kind starts from random ones.
    teacher = Network(source.model, student.options) if kind.module == INCEPTION else Network("s3dg_slim", small)
    return student, teacher


def frame_size(measured: Measured, student: Network, machine: Machine) -> tuple[int, int, str]:
    """Short side of the stored frames, crop of the clips, and why."""
    held = int(np.quantile(measured.short_sides, 0.1))
    if student.side is not None:
        return -(-student.side * 8 // 7), student.side, f"{student.name} takes clips of {student.side} pixels alone"
    fitting = [size for size in SIZES if size[1] <= held] or [SIZES[-1]]
    if machine.has_gpu:
        return *fitting[0], f"The largest of 256, 128 and 64 that nine of ten videos fill (theirs: {held} or more)"
    least = SIZES[1] if machine.num_cores >= MANY_CORES or student.start != RANDOM else SIZES[2]
    side, crop = least if least in fitting else fitting[0]
    return side, crop, f"The videos have {held} or more; without a GPU small frames train in minutes. 128 sees more"


def stored_rate(measured: Measured) -> tuple[float | None, str]:
    """Frames per second of the stored frames (None: each video's own), and why."""
    low, high = np.quantile(measured.rates, [0.1, 0.9])
    if high <= 1.05 * low:
        if low < 45:
            return None, f"Null keeps each video's own rate; all have about {low:.3g}"
        half = low / 2
        return float(round(half)), f"Half of the videos' {low:.3g}: neighbouring frames hardly differ"
    rate = next((rate for rate in RATES if rate <= low * 1.01), RATES[-1])
    return rate, f"The videos have {low:.3g} to {high:.3g}: one that nearly all reach, so that no frame is stored twice"


def clip_length(frames: np.ndarray, rate: float, student: Network, machine: Machine) -> tuple[int, int, str]:
    """Frames of a clip, their distance, and why.

    Args:
        frames: stored frames of the measured videos.
        rate: of the stored frames, per second.
        student: may take one length only.
        machine: without a GPU clips have 16 frames.
    """
    short = int(np.quantile(frames, 0.25))
    wanted = 64 if machine.has_gpu else 16
    length = student.frames or next((one for one in (64, 32, 16) if one <= min(wanted, short)), 8)
    span = min(short, round(CLIP_SECONDS * rate))
    stride = max(1, min(4, span // length))
    about = f"One stored frame in {stride}, so that a clip spans {length * stride}" if stride > 1 else "Frame by frame"
    return length, stride, f"{about}; three of four videos have {short} stored frames or more"


def recipe_size(num_train: int, student: Network, machine: Machine) -> tuple[int, int, int, float, int]:
    """Clips of a batch, steps, epochs, the rate, and the clips of a batch for which the rate is meant."""
    largest = 24 if machine.has_gpu else 12
    batch = max(1, min(largest, max(LEAST_CLIPS, num_train // 4 // 2 * 2), num_train))
    epochs = 60 if num_train < 1000 else 30 if num_train < 10_000 else 15
    rate, clips = (0.03, 12) if "depth_multiplier" in student.options else (0.01, 12)
    if student.start != RANDOM:
        # The start knows much already, and S3D-G's fine-tuning (section 6.1) has 0.01 at 48 clips.
        epochs, rate, clips = max(10, epochs // 2), 0.01, 48
    return batch, max(60, round(epochs * num_train / batch)), epochs, rate, clips


def motion_bound(seen: float) -> float:
    """Where the stored flow is clipped: the least of ``BOUNDS`` with a quarter more than was seen, pixels."""
    return next((bound for bound in BOUNDS if bound >= 1.25 * seen), BOUNDS[-1])


def propose(
    own: OwnVideos,
    measured: Measured,
    motion_seen: Callable[[int, float | None], float],
    teacher: str,
    start: str,
    machine: Machine,
) -> Proposal:
    """All settings.

    Args:
        own: the videos.
        measured: a sample of them.
        motion_seen: how far pixels move between stored frames of this short side and rate, pixels.
        teacher: a key of ``TEACHERS``.
        start: of the student.
        machine: on which they train.

    Raises:
        UserError: there is no such start.
    """
    student, flow_network = networks_for(start, machine)
    short_side, crop, why_size = frame_size(measured, student, machine)
    rate, why_rate = stored_rate(measured)
    seen = motion_seen(short_side, rate)
    rates = measured.rates if rate is None else np.full(len(measured.rates), rate)
    frames = measured.seconds * rates
    num_frames, stride, why_clip = clip_length(frames, float(np.median(rates)), student, machine)
    clips = float(np.median(frames)) / (num_frames * stride)
    protocol, num_clips = next((name, number) for most, name, number in PROTOCOLS if clips <= most)
    batch, steps, epochs, base_rate, rate_clips = recipe_size(own.count("train"), student, machine)
    sided = [name for name in own.classes if SIDED.search(name)]
    alike = NETWORKS[student.name].module == NETWORKS[flow_network.name].module == INCEPTION
    return Proposal(
        short_side=short_side,
        frames_per_second=rate,
        num_frames=num_frames,
        stride=stride,
        crop=crop,
        protocol=protocol,
        num_clips=num_clips,
        motion=TEACHERS[teacher],
        motion_seen=seen,
        bound=motion_bound(seen),
        batch=batch,
        steps=steps,
        epochs=epochs,
        base_rate=base_rate,
        rate_clips=rate_clips,
        num_shards=shards_for(len(own.videos)),
        num_threads=max(1, machine.num_cores // 2),
        horizontal_flip="forbidden" if sided else "allowed",
        student=student,
        teacher=flow_network,
        endpoint="Mixed_4f" if alike else "logits",
        weight=100.0 if alike else 1.0,
        reason={
            "short_side": why_size,
            "frames_per_second": why_rate,
            "num_frames": why_clip,
            "protocol": f"a video of median length holds {clips:.1f} clips",
            "horizontal_flip": f"The class {sided[0]!r} names a side, and a mirrored clip would belong to another class"
            if sided
            else "Write forbidden if a mirrored clip belongs to another class",
        },
    )

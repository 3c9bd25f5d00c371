"""TV-L1 optical flow as a motion method: compiled loops on the CPU, batches on the GPU, or OpenCV's own code."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.messages import parsed
from pipeline_lib.configuration.motions import TVL1Parameters
from pipeline_lib.flow.methods import pair_indices
from pipeline_lib.flow.quantisation import Quantisation
from pipeline_lib.flow.tvl1.cpu import TVL1
from pipeline_lib.flow.tvl1.parameters import level_sizes
from pipeline_lib.flow.tvl1.torch_solver import pyramid, tvl1_from_pyramids


def opencv_object(parameters: TVL1Parameters) -> "cv2.optflow.DualTVL1OpticalFlow":  # type: ignore[name-defined]
    """OpenCV's own TV-L1 with these parameters; each image size needs a new object."""
    return cv2.optflow.DualTVL1OpticalFlow_create(  # type: ignore[attr-defined,no-any-return]
        tau=parameters.tau,
        lambda_=parameters.lambda_,
        theta=parameters.theta,
        nscales=parameters.num_scales,
        warps=parameters.num_warps,
        epsilon=parameters.epsilon,
        innnerIterations=parameters.inner_iterations,
        outerIterations=parameters.outer_iterations,
        scaleStep=parameters.scale_step,
        medianFiltering=parameters.median_size,
    )


class TVL1OnCPU:
    """Each thread computes consecutive pairs and makes the pyramid of each of their frames once."""

    colour = False
    versions = ("numba", "numpy", "opencv-contrib-python-headless")

    def __init__(self, kind: Motion, num_threads: int) -> None:
        self._values = parsed(TVL1Parameters, kind.parameters, f"motion method {kind.method}: parameters")
        self.parameters: dict[str, object] = self._values.model_dump(by_alias=True)
        self.quantisation = Quantisation(kind.channels, kind.bound)
        self._num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads)
        self._local = threading.local()

    def pairs_per_call(self, height: int, width: int) -> int:
        """64 pairs of any size, because each pair is computed alone."""
        del height, width
        return 64

    def _solver(self, shape: tuple[int, int]) -> TVL1:
        """This thread's work arrays for frames of one size."""
        if getattr(self._local, "shape", None) != shape:
            self._local.solver = TVL1(*shape, self._values)
            self._local.shape = shape
        solver: TVL1 = self._local.solver
        return solver

    def _run(self, frames: np.ndarray, pairs: list[tuple[int, int]], target: np.ndarray) -> None:
        """Flow of consecutive pairs into ``target`` (len(pairs), 2, H, W)."""
        if self._values.mode == "library":
            solver = opencv_object(self._values)
            for index, (first, second) in enumerate(pairs):
                target[index] = solver.calc(frames[first], frames[second], None).transpose(2, 0, 1)  # type: ignore[call-overload]
            return
        own = self._solver((frames.shape[1], frames.shape[2]))
        pyramids: dict[int, list[np.ndarray]] = {}
        for index, (first, second) in enumerate(pairs):
            for frame in (first, second):
                if frame not in pyramids:
                    pyramids[frame] = own.pyramid(frames[frame])
            target[index] = own.flow(pyramids[first], pyramids[second])
            pyramids.pop(min(first, second), None)

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        """See ``methods.MotionMethod``."""
        height, width = frames.shape[1:3]
        level_sizes(height, width, self._values)
        pairs = pair_indices(len(frames), gap)
        fields = np.empty((len(pairs), 2, height, width), np.float32)
        cuts = np.linspace(0, len(pairs), min(self._num_threads, len(pairs)) + 1).astype(int).tolist()
        runs = [(pairs[a:b], fields[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
        list(self._pool.map(lambda run: self._run(frames, *run), runs))
        return torch.from_numpy(fields)


class TVL1OnGPU:
    """All pairs of a call in one batch; each frame's pyramid is made once."""

    colour = False
    versions = ("torch", "triton")

    def __init__(self, kind: Motion, device: torch.device) -> None:
        self._values = parsed(TVL1Parameters, kind.parameters, f"motion method {kind.method}: parameters")
        self.parameters: dict[str, object] = self._values.model_dump(by_alias=True)
        self.quantisation = Quantisation(kind.channels, kind.bound)
        self._device = device
        self._batched: dict[tuple[int, int, int, int], Callable[[torch.Tensor], torch.Tensor]] = {}

    def pairs_per_call(self, height: int, width: int) -> int:
        """As many as keep the device busy: 64 pairs of 340×256, fewer of larger frames (some 100 bytes a pixel)."""
        return max(1, min(256, 64 * 340 * 256 // (height * width)))

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        """See ``methods.MotionMethod``."""
        height, width = frames.shape[1:3]
        level_sizes(height, width, self._values)
        grey = torch.from_numpy(frames).to(self._device, non_blocking=True)[:, None]
        if self._values.mode == "opencv":
            levels = pyramid(grey, self._values)
            first, second = (list(side) for side in zip(*pair_indices(len(frames), gap), strict=True))
            return tvl1_from_pyramids(
                [level[first] for level in levels], [level[second] for level in levels], self._values
            )
        num_pairs = len(frames) - abs(gap)
        # Each number of pairs needs a graph of its own, so the end of a video is padded to a power of two.
        size = max(num_pairs, min(self.pairs_per_call(height, width), 1 << (num_pairs - 1).bit_length()))
        missing = size - num_pairs
        if missing:
            grey = torch.cat([grey, grey[-1:].expand(missing, -1, -1, -1)])
        try:
            return self._solver(len(grey), height, width, gap)(grey)[:num_pairs]
        except torch.OutOfMemoryError:
            # The caller tries a smaller call next, which needs the memory that the other graphs hold.
            self._batched.clear()
            raise

    def _solver(self, num_frames: int, height: int, width: int, gap: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """The captured graph for calls of this shape. Graphs hold memory, so only the last four are kept."""
        # Imported here, because Triton is not installed where there is no GPU.
        from pipeline_lib.flow.tvl1.gpu import BatchedTVL1

        key = (num_frames, height, width, gap)
        if key not in self._batched:
            while len(self._batched) >= 4:
                self._batched.pop(next(iter(self._batched)))
            self._batched[key] = BatchedTVL1(*key, self._values, self._device)
        return self._batched[key]


def create(kind: Motion, device: torch.device, num_threads: int) -> TVL1OnCPU | TVL1OnGPU:
    """See ``methods``. OpenCV's own code (``mode: library``) always runs on the CPU."""
    if device.type == "cuda" and kind.parameters.get("mode") != "library":
        return TVL1OnGPU(kind, device)
    return TVL1OnCPU(kind, num_threads)

"""TV-L1 on the CPU: what ``torch_solver`` defines, in compiled loops, one pair per thread."""

from dataclasses import dataclass

import numpy as np

from pipeline_lib.configuration.motions import TVL1Parameters
from pipeline_lib.flow.tvl1.kernels import MARGIN, iterate, pack_level, resize_level, warp_level
from pipeline_lib.flow.tvl1.median_network import median_5x5
from pipeline_lib.flow.tvl1.parameters import level_sizes


@dataclass(frozen=True)
class _Level:
    """Work arrays of one level; ``kernels`` explains their layout."""

    u: np.ndarray
    px: np.ndarray
    py: np.ndarray
    constants: np.ndarray
    filtered: np.ndarray
    columns: np.ndarray
    step: np.ndarray


class TVL1:
    """TV-L1 of frames of one size. One object serves one thread.

    Args:
        height: of the frames, pixels.
        width: of the frames, pixels.
        parameters: ``mode`` chooses the rule for the iterations.

    Raises:
        ValueError: a side is below 16 px.
    """

    def __init__(self, height: int, width: int, parameters: TVL1Parameters) -> None:
        self.sizes = level_sizes(height, width, parameters)
        self.parameters = parameters
        self._levels = [self._work(*size) for size in self.sizes]

    @staticmethod
    def _work(height: int, width: int) -> _Level:
        return _Level(
            u=np.zeros((2, height, width + 1), np.float32),
            px=np.zeros((2, height, width + 1), np.float32),
            py=np.zeros((2, height + 1, width), np.float32),
            constants=np.zeros((4, height, width), np.float32),
            filtered=np.zeros((height, width), np.float32),
            columns=np.zeros((5, width + 4), np.float32),
            step=np.zeros(width, np.float32),
        )

    def pyramid(self, frame: np.ndarray) -> list[np.ndarray]:
        """Packed levels of a grey frame (H, W), values 0 … 255, the finest first.

        Compute it once per frame: it is the same for the first and for the second frame of a pair.

        Raises:
            ValueError: the frame has another size, or values that are not finite.
        """
        if frame.shape != self.sizes[0]:
            raise ValueError(f"a frame of shape {frame.shape}; wanted {self.sizes[0]}")
        image = np.ascontiguousarray(frame, dtype=np.float32)
        if not np.isfinite(image).all():
            raise ValueError("a frame with values that are not finite")
        scale = 1 / self.parameters.scale_step
        levels = []
        for index, (height, width) in enumerate(self.sizes):
            if index:
                smaller = np.empty((height, width), np.float32)
                resize_level(image, *image.shape, smaller, scale, scale, np.float32(1))
                image = smaller
            packed = np.zeros((height + 2 * MARGIN, width + 2 * MARGIN, 4), np.float32)
            pack_level(image, packed)
            levels.append(packed)
        return levels

    def flow(self, first: list[np.ndarray], second: list[np.ndarray]) -> np.ndarray:
        """Flow between two frames, from their pyramids.

        Returns:
            float32 (2, H, W): (u, v) in pixels.
        """
        self._levels[-1].u[:] = 0
        for index in reversed(range(len(self.sizes))):
            self._solve(self._levels[index], first[index], second[index])
            if index:
                self._enlarge(self._levels[index], self._levels[index - 1])
        return self._levels[0].u[:, :, :-1].copy()

    def _enlarge(self, coarse: _Level, fine: _Level) -> None:
        """Resize u to the next finer level; vectors grow by the pyramid's constant, not by the ratio of the sizes."""
        _, height, width = coarse.constants.shape
        _, rows, columns = fine.constants.shape
        factor = np.float32(1 / self.parameters.scale_step)
        for i in range(2):
            resize_level(coarse.u[i], height, width, fine.u[i, :, :-1], height / rows, width / columns, factor)

    def _solve(self, level: _Level, first: np.ndarray, second: np.ndarray) -> None:
        """All warps of one level; the dual variable starts at zero once, not at every warp."""
        parameters = self.parameters
        level.px[:] = 0
        level.py[:] = 0
        _, height, width = level.constants.shape
        threshold = parameters.epsilon**2 * height * width
        for _ in range(parameters.num_warps):
            warp_level(first, second, level.u, level.constants)
            if parameters.mode == "fixed":
                self._median(level)
                self._iterate(level, parameters.iterations)
                continue
            change = np.inf
            for _ in range(parameters.outer_iterations):
                if change <= threshold:
                    break
                self._median(level)
                for _ in range(parameters.inner_iterations):
                    change = self._iterate(level, 1)
                    if change <= threshold:
                        break

    def _median(self, level: _Level) -> None:
        if self.parameters.median_size == 1:
            return
        for i in range(2):
            component = level.u[i, :, :-1]
            median_5x5(component, level.filtered, level.columns)
            component[:] = level.filtered

    def _iterate(self, level: _Level, count: int) -> float:
        parameters = self.parameters
        change: float = iterate(
            level.u,
            level.px,
            level.py,
            level.constants,
            level.step,
            count,
            np.float32(parameters.lambda_ * parameters.theta),
            np.float32(parameters.theta),
            np.float32(parameters.tau / parameters.theta),
        )
        return change

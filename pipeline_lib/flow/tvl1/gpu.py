"""TV-L1 in ``fixed`` mode on a GPU: a batch of a video's pairs, its launches captured once in a CUDA graph.

Nothing waits for the device and Python launches nothing per iteration: a call copies the frames into the graph's buffer
and replays it. Each frame's pyramid and gradients are made once; pairs refer to them by an offset.
"""

from dataclasses import dataclass

import torch

from pipeline_lib.flow.tvl1.parameters import FLT_EPSILON, TVL1Parameters
from pipeline_lib.flow.tvl1.torch_solver import pyramid, resize_linear
from pipeline_lib.flow.tvl1.triton_solver import iterate_tiles, prepare_warp


@dataclass(frozen=True)
class Tile:
    """How the iterations are cut up. The values do not depend on it, the speed does.

    Attributes:
        rows: of a tile with its halo, pixels; a power of two.
        columns: the same.
        iterations: done on the chip in one go, which is the width of the halo.
        num_warps: that share a tile; its ten planes lie in their registers.
    """

    rows: int
    columns: int
    iterations: int
    num_warps: int


# The first is taken where nothing can be measured: no card's compiler spills its registers (124 a thread on sm_90), and
# a multiprocessor has 16 warps at work. A larger tile loses less to its halo (66 % of 64 × 64 is written, 58 % of
# 32 × 64), but spills, by 20 bytes a thread with 16 warps and 40 with 8; smaller ones give more blocks to choose from.
TILES = (Tile(32, 64, 5, 16), Tile(64, 64, 6, 16), Tile(64, 64, 6, 8), Tile(32, 64, 5, 8), Tile(32, 32, 4, 4))
BLOCK = 256
_CHOSEN: dict[torch.device, Tile] = {}


def iterate(
    planes: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    constants: torch.Tensor,
    count: int,
    parameters: TVL1Parameters,
    tile: Tile,
) -> None:
    """``count`` ≤ ``tile.iterations`` iterations of all pairs.

    Args:
        planes: u and p as they are, and the tensors that take the new ones; shapes as in ``tvl1_triton``.
        constants: of the warp.
        count: iterations.
        parameters: τ, λ and θ.
        tile: how to cut it up.
    """
    num_pairs, _, height, width = constants.shape
    rows, columns = tile.rows - 2 * count, tile.columns - 2 * count
    iterate_tiles[(-(-width // columns), -(-height // rows), num_pairs)](
        *planes,
        constants,
        height,
        width,
        parameters.lambda_ * parameters.theta,
        parameters.theta,
        parameters.tau / parameters.theta,
        COUNT=count,
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        num_warps=tile.num_warps,
    )


def fastest_tile(device: torch.device) -> Tile:
    """The tile that this device does best with, timed once per process on 16 pairs of 340 × 256 (some seconds)."""
    if device.type != "cuda":
        return TILES[0]
    if device not in _CHOSEN:
        parameters = TVL1Parameters()
        u, other_u = torch.zeros(2, 16, 2, 256, 340, device=device)
        p, other_p, constants = torch.zeros(3, 16, 4, 256, 340, device=device)
        times = {}
        for tile in TILES:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            for repeat in range(12):
                if repeat == 2:
                    start.record()
                iterate((u, p, other_u, other_p), constants, tile.iterations, parameters, tile)
            end.record()
            end.synchronize()
            times[tile] = start.elapsed_time(end) / tile.iterations
        _CHOSEN[device] = min(times, key=lambda tile: times[tile])
    return _CHOSEN[device]


class BatchedTVL1:
    """Flow of all pairs of ``num_frames`` consecutive frames, ``gap`` apart.

    Args:
        num_frames: frames of a call.
        height: of the frames, pixels, ≥ 16.
        width: of the frames, pixels, ≥ 16.
        gap: from frame t to t + gap.
        parameters: of mode ``fixed``.
        device: a CUDA device; with Triton's interpreter (TRITON_INTERPRET=1) also the CPU, without a graph.
        tile: how the iterations are cut up; None is the device's fastest.

    Raises:
        torch.OutOfMemoryError: the pairs are too many for the device.
    """

    def __init__(
        self,
        num_frames: int,
        height: int,
        width: int,
        gap: int,
        parameters: TVL1Parameters,
        device: torch.device,
        tile: Tile | None = None,
    ) -> None:
        self._parameters = parameters
        self._tile = tile or fastest_tile(device)
        self._num_pairs = num_frames - abs(gap)
        self._first, self._second = max(0, -gap), max(0, gap)
        self._frames = torch.zeros(num_frames, 1, height, width, dtype=torch.float32, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            # Triton compiles and torch reserves memory outside of the capture.
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                self._solve()
            torch.cuda.current_stream(device).wait_stream(stream)
            self._capture()

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Flow (num_frames − abs(gap), 2, H, W) float32 of grey frames (num_frames, 1, H, W), 0 … 255.

        The result is the caller's: a later call does not overwrite it.
        """
        self._frames.copy_(frames)
        if self._graph is None:
            return self._solve()
        self._graph.replay()
        return self._flow.clone()

    def _capture(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
                self._flow = self._solve()
        except RuntimeError as error:
            # Ending the capture that memory broke off can raise an error of its own, which hides the cause.
            if isinstance(error.__context__, torch.OutOfMemoryError):
                raise torch.OutOfMemoryError(str(error.__context__)) from error
            raise

    def _solve(self) -> torch.Tensor:
        """All levels, from the frames in the buffer."""
        levels = pyramid(self._frames, self._parameters)
        coarsest = levels[-1]
        u = torch.zeros(self._num_pairs, 2, *coarsest.shape[-2:], device=coarsest.device)
        for level in reversed(levels):
            height, width = level.shape[-2:]
            if u.shape[-2:] != level.shape[-2:]:
                scale = (u.shape[-2] / height, u.shape[-1] / width)
                u = resize_linear(u, (height, width), scale) * (1 / self._parameters.scale_step)
            u = self._level(level.contiguous(), u.contiguous())
        return u

    def _level(self, level: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """All warps of one level; two buffers each for u and p take turns."""
        parameters = self._parameters
        height, width = level.shape[-2:]
        spare = torch.empty_like(u)
        p = torch.zeros(self._num_pairs, 4, height, width, device=u.device)
        spare_p = torch.empty_like(p)
        constants = torch.empty_like(p)
        for _ in range(parameters.num_warps):
            prepare_warp[(-(-height * width // BLOCK), self._num_pairs)](
                level,
                u,
                spare,
                constants,
                self._first,
                self._second,
                height,
                width,
                FLT_EPSILON,
                FILTER=parameters.median_size > 1,
                BLOCK=BLOCK,
            )
            u, spare = spare, u
            left = parameters.iterations
            while left:
                count = min(self._tile.iterations, left)
                iterate((u, p, spare, spare_p), constants, count, parameters, self._tile)
                u, spare, p, spare_p = spare, u, spare_p, p
                left -= count
        return u

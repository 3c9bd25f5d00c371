"""TV-L1 in ``fixed`` mode on a GPU: a batch of a video's pairs, its launches captured once in a CUDA graph.

A call copies the frames into the graph's buffer and replays the graph. So Python launches nothing per iteration and
waits for nothing. Each frame's pyramid and gradients are made once; pairs refer to them by an offset.
"""

from dataclasses import dataclass

import torch

from pipeline_lib.configuration.motions import TVL1Parameters
from pipeline_lib.flow.tvl1.parameters import FLT_EPSILON
from pipeline_lib.flow.tvl1.torch_solver import pyramid, resize_linear
from pipeline_lib.flow.tvl1.triton_solver import iterate_tiles, prepare_warp


@dataclass(frozen=True)
class Tile:
    """How the iterations are divided into tiles. This changes the speed and not the values.

    Attributes:
        rows: of a tile with its halo, pixels; a power of two.
        columns: of a tile with its halo, pixels; a power of two.
        iterations: number of iterations between two accesses to memory; also the width of the halo.
        num_warps: warps that compute a tile; their registers hold its ten planes.
    """

    rows: int
    columns: int
    iterations: int
    num_warps: int


# The first is used where nothing can be timed: it fits into the registers on every card (124 a thread on sm_90) and
# keeps 16 warps of a multiprocessor busy. A larger tile loses less to its halo (66 % of 64 × 64 is written,
# 58 % of 32 × 64) but does not fit: it spills 20 bytes a thread with 16 warps and 40 with 8. Smaller tiles give more
# blocks.
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
        planes: u and p, then the tensors for the new u and p; shapes as in ``triton_solver``.
        constants: of the warp.
        count: iterations.
        parameters: TV-L1's tau, lambda and theta.
        tile: how to divide the work.
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
    """The fastest tile on this device, timed once per process on 16 pairs of 340 × 256 (some seconds)."""
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
        tile: how the iterations are divided; None takes the device's fastest.

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
            # A first run compiles the kernels and reserves memory, which a capture must not do.
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                self._solve()
            torch.cuda.current_stream(device).wait_stream(stream)
            self._capture()

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Flow (num_frames − abs(gap), 2, H, W) float32 of grey frames (num_frames, 1, H, W), 0 … 255.

        A later call does not overwrite the result.
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
            # When memory runs out, ending the capture can raise another error, which hides the cause.
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
        """All warps of one level; u and p have two buffers each, one read and one written in turn."""
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

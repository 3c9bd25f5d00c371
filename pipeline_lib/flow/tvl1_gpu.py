"""TV-L1 in ``fixed`` mode on a GPU: a batch of a video's pairs, its launches captured once in a CUDA graph.

Nothing waits for the device and Python launches nothing per iteration: a call copies the frames into the graph's buffer
and replays it. Each frame's pyramid and gradients are made once; pairs refer to them by an offset.
"""

import torch

from pipeline_lib.flow.tvl1_parameters import FLT_EPSILON, TVL1Parameters
from pipeline_lib.flow.tvl1_torch import pyramid, resize_linear
from pipeline_lib.flow.tvl1_triton import iterate_tiles, prepare_warp

# A tile of 64 × 64 px holds its ten planes in the registers of eight warps; 6 iterations in one go leave 52 × 52 px of
# it, two thirds, to be written.
TILE = 64
FUSED_ITERATIONS = 6
NUM_WARPS = 8
BLOCK = 256


class BatchedTVL1:
    """Flow of all pairs of ``num_frames`` consecutive frames, ``gap`` apart.

    Args:
        num_frames: frames of a call.
        height: of the frames, pixels, ≥ 16.
        width: of the frames, pixels, ≥ 16.
        gap: from frame t to t + gap.
        parameters: of mode ``fixed``.
        device: a CUDA device; with Triton's interpreter (TRITON_INTERPRET=1) also the CPU, without a graph.
    """

    def __init__(
        self, num_frames: int, height: int, width: int, gap: int, parameters: TVL1Parameters, device: torch.device
    ) -> None:
        self._parameters = parameters
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
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._flow = self._solve()

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Flow (num_frames − abs(gap), 2, H, W) float32 of grey frames (num_frames, 1, H, W), 0 … 255.

        The result is the caller's: a later call does not overwrite it.
        """
        self._frames.copy_(frames)
        if self._graph is None:
            return self._solve()
        self._graph.replay()
        return self._flow.clone()

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
                count = min(FUSED_ITERATIONS, left)
                inner = TILE - 2 * count
                iterate_tiles[(-(-width // inner), -(-height // inner), self._num_pairs)](
                    u,
                    p,
                    spare,
                    spare_p,
                    constants,
                    height,
                    width,
                    parameters.lambda_ * parameters.theta,
                    parameters.theta,
                    parameters.tau / parameters.theta,
                    COUNT=count,
                    ROWS=TILE,
                    COLUMNS=TILE,
                    num_warps=NUM_WARPS,
                )
                u, spare, p, spare_p = spare, u, spare_p, p
                left -= count
        return u

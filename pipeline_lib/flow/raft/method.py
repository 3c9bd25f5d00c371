"""RAFT (Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020) as a motion method.

The networks are torchvision's. What differs from their ``forward`` changes values only by rounding. Each frame of a
video passes the feature encoder once, though it is in two pairs. The context's share of the update is computed once per
pair (``raft.update``). Only the last iteration is upsampled. Maps lie in channels-last memory. On a CPU the look-ups
are compiled (``raft.lookup``). With autocast (the default on a GPU) the encoders and the update block compute in 16
bits; coordinates and the look-up of correlations stay in float32.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.messages import parsed
from pipeline_lib.configuration.motions import RAFTParameters
from pipeline_lib.flow.methods import pair_indices
from pipeline_lib.flow.quantisation import Quantisation
from pipeline_lib.flow.raft.lookup import CorrelationPyramid
from pipeline_lib.flow.raft.update import UpdateStep
from pipeline_lib.flow.raft.weights import load_weights

# The encoders halve the sides three times, and the coarsest of four correlation levels needs two values a side: below
# 128 px torchvision refuses (older versions gave NaN, pytorch/vision#7338).
STRIDE = 8
MINIMUM_SIDE = 128


def pad_frames(frames: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """Pad (N, 3, H, W) to sides of multiples of 8, of at least 128 px, the border repeated on both ends.

    Returns:
        The padded frames, and the rows and columns that were added at the top and on the left.
    """
    height, width = frames.shape[-2:]
    rows = max(MINIMUM_SIDE, -(-height // STRIDE) * STRIDE) - height
    columns = max(MINIMUM_SIDE, -(-width // STRIDE) * STRIDE) - width
    top, left = rows // 2, columns // 2
    if rows == 0 and columns == 0:
        return frames, (0, 0)
    return F.pad(frames, (left, columns - left, top, rows - top), mode="replicate"), (top, left)


class _FrameNorm(nn.Module):
    """Instance normalisation. For one frame it is batch normalisation, which needs no copy in channels-last memory."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise maps (B, C, H, W) over H and W."""
        if len(maps) > 1:
            return F.instance_norm(maps, eps=self.eps)
        return F.batch_norm(maps, None, None, training=True, eps=self.eps)


def _norm_frames(module: nn.Module) -> None:
    """Replace every instance normalisation by ``_FrameNorm``."""
    for name, child in module.named_children():
        if isinstance(child, nn.InstanceNorm2d):
            setattr(module, name, _FrameNorm(child.eps))
        else:
            _norm_frames(child)


class RAFT:
    """Flow between frames of a video; each frame's features are computed once.

    Args:
        parameters: which network, which weights, how many iterations.
        device: where to compute.

    Raises:
        UserError: the weights are absent or do not fit.
    """

    def __init__(self, parameters: RAFTParameters, device: torch.device) -> None:
        build = getattr(torchvision.models.optical_flow, f"raft_{parameters.model}")
        network: Any = build(weights=None)
        self.digest = load_weights(network, parameters.model, parameters.weights, parameters.sha256)
        self.network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self.iterations = parameters.iterations
        self._device = device
        self._autocast = getattr(torch, parameters.autocast if device.type == "cuda" else parameters.autocast_cpu)
        self._num_hidden = int(network.update_block.hidden_state_size)
        self._encode, self._context = self.network.feature_encoder, self.network.context_encoder
        if device.type == "cpu":
            _norm_frames(self._encode)
        step: Any = UpdateStep(self.network.update_block, self._context.output_dim - self._num_hidden)
        self._fixed, self._update = step.fixed, step
        # On a CPU each thread computes a pair alone, because torch's own threads would share every small operation and
        # wait at its end. So the values do not depend on the number of threads. torch.compile needs one thread.
        self.num_threads = torch.get_num_threads() if device.type == "cpu" and not parameters.compile else 1
        if parameters.compile:
            self._encode, self._context = torch.compile(self._encode), torch.compile(self._context)
            self._update = torch.compile(self._update)

    def _reduced(self) -> torch.autocast:
        return torch.autocast(self._device.type, self._autocast, enabled=self._autocast != torch.float32)

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Feature maps (N, C, H/8, W/8) float32 of frames (N, 3, H, W) in [−1, 1]."""
        with self._reduced():
            features: torch.Tensor = self._encode(frames.contiguous(memory_format=torch.channels_last))
        return features.float().contiguous()

    def from_features(self, frames: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Flow (N, 2, H, W) float32 between the frames of two feature maps; ``frames`` are the first ones."""
        network = self.network
        blocks = network.corr_block
        look_up = blocks.index_pyramid
        if self._device.type == "cpu":
            look_up = CorrelationPyramid(first, second, blocks.num_levels, blocks.radius).look_up
        else:
            blocks.build_pyramid(first, second)
        with self._reduced():
            both = self._context(frames.contiguous(memory_format=torch.channels_last))
            hidden, context = torch.split(both, [self._num_hidden, both.shape[1] - self._num_hidden], dim=1)
            hidden, fixed = torch.tanh(hidden), self._fixed(F.relu(context))
        height, width = first.shape[-2:]
        start = make_coords_grid(len(first), height, width).to(self._device)
        points = start
        for _ in range(self.iterations):
            correlation = look_up(points)
            with self._reduced():
                hidden, change = self._update(hidden, fixed, correlation, points - start)
            points = points + change.float()
        blocks.corr_pyramid = []
        with self._reduced():
            mask = None if network.mask_predictor is None else network.mask_predictor(hidden)
        flow: torch.Tensor = upsample_flow(flow=points - start, up_mask=None if mask is None else mask.float())
        return flow

    def pairs(self, frames: torch.Tensor, pairs: list[tuple[int, int]], batch: int) -> torch.Tensor:
        """Flow of pairs of a video's frames.

        Args:
            frames: uint8 or float (N, 3, H, W) RGB, 0 … 255, any size.
            pairs: (from, to) indices.
            batch: pairs and frames that pass the network together.

        Returns:
            float32 (len(pairs), 2, H, W).
        """
        height, width = frames.shape[-2:]
        with torch.inference_mode():
            padded, (top, left) = pad_frames(frames.to(self._device).float() / 127.5 - 1)

        def encoded(start: int) -> torch.Tensor:
            return self.features(padded[start : start + batch])

        def field(start: int) -> torch.Tensor:
            first, second = (list(side) for side in zip(*pairs[start : start + batch], strict=True))
            flow = self.from_features(padded[first], features[first], features[second])
            return flow[..., top : top + height, left : left + width]

        features = torch.cat(self._map(encoded, range(0, len(padded), batch)))
        return torch.cat(self._map(field, range(0, len(pairs), batch)))

    def _map(self, function: Callable[[int], torch.Tensor], starts: range) -> list[torch.Tensor]:
        """The results for all starts; on a CPU each thread computes some of them."""

        def call(start: int) -> torch.Tensor:
            with torch.inference_mode():
                return function(start)

        if self.num_threads == 1:
            return [call(start) for start in starts]
        with ThreadPoolExecutor(self.num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(call, starts))


class RAFTMethod:
    """RAFT as a motion method of RGB frames."""

    colour = True
    versions = ("torchvision",)

    def __init__(self, kind: Motion, device: torch.device) -> None:
        values = parsed(RAFTParameters, kind.parameters, f"motion method {kind.method}: parameters")
        self._raft = RAFT(values, device)
        self.parameters: dict[str, object] = values.model_dump() | {"weights_sha256": self._raft.digest}
        self.quantisation = Quantisation(kind.channels, kind.bound)
        self._device = device

    def _batch(self, height: int, width: int) -> int:
        """Pairs per pass: on a GPU some 32 of 340×256; on a CPU one, because its data fit into the cache."""
        if self._device.type == "cpu":
            return 1
        # The correlation volume grows with the square of the frame's area.
        area = max(height, MINIMUM_SIDE) * max(width, MINIMUM_SIDE) / (340 * 256)
        return max(1, min(64, round(32 / max(area, area**2))))

    def pairs_per_call(self, height: int, width: int) -> int:
        """Two passes on a GPU, 16 pairs or more on a CPU; calls that follow each other compute some features twice."""
        return max(16, 4 * self._raft.num_threads) if self._device.type == "cpu" else 2 * self._batch(height, width)

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        """See ``methods.MotionMethod``."""
        rgb = torch.from_numpy(frames).permute(0, 3, 1, 2)
        # When memory runs out, the stage halves the call; then the pass must become smaller too.
        num_pairs = len(frames) - abs(gap)
        batch = min(self._batch(*frames.shape[1:3]), num_pairs)
        return self._raft.pairs(rgb, pair_indices(len(frames), gap), batch)


def create(kind: Motion, device: torch.device, num_threads: int) -> RAFTMethod:
    """See ``methods``. On the CPU each thread computes pairs of its own."""
    if device.type == "cpu":
        torch.set_num_threads(num_threads)
    return RAFTMethod(kind, device)

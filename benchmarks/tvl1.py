"""TV-L1 pairs per second at 340×256 against OpenCV's CPU implementation in the same run, agreement beside it.

On a machine with a GPU the figure is the GPU's, frames on the device to flow on the device; else the CPU's, all cores.
"""

import argparse
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from common import emit, say

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.motions import TVL1Parameters
from pipeline_lib.flow.endpoint_error import summarise
from pipeline_lib.flow.tvl1.method import create, opencv_object
from pipeline_lib.flow.tvl1.parameters import level_sizes

MEDIA = Path(os.environ.get("PIPELINE_MEDIA", Path(__file__).resolve().parents[2] / "shared" / "media"))
HEIGHT, WIDTH = 256, 340
# Bytes per pixel and iteration that a 64² tile with a halo of 8 moves when 8 iterations stay on the chip.
TILED_BYTES = 10.0


def frames_of(clip: Path, count: int) -> np.ndarray:
    """Grey frames (count, 256, 340) of a clip, or a moving texture where there is none."""
    if not clip.is_file():
        noise = cv2.GaussianBlur(np.random.default_rng(0).random((HEIGHT + 80, WIDTH + 80)), (0, 0), 3)
        noise = np.round((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)
        return np.stack([noise[40 + t % 7 : 40 + t % 7 + HEIGHT, 40 - t : 40 - t + WIDTH] for t in range(count)])
    capture = cv2.VideoCapture(str(clip))
    frames = []
    while len(frames) < count:
        good, frame = capture.read()
        if not good:
            break
        frames.append(
            cv2.cvtColor(cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        )
    return np.stack(frames)


def rate(motion: object, frames: np.ndarray, repeats: int, device: torch.device) -> tuple[float, np.ndarray]:
    """Pairs per second of the fastest of several calls, and the flow."""
    best, flow = 0.0, None
    for _ in range(repeats):
        start = time.perf_counter()
        flow = motion(frames, 1)  # type: ignore[operator]
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, len(flow) / (time.perf_counter() - start))
    assert flow is not None
    return best, flow.cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=MEDIA / "clips" / "abseiling.mp4")
    parser.add_argument("--pairs", type=int, default=0, help="pairs per call (default: 24 on a CPU, 64 on a GPU)")
    parser.add_argument("--reference-pairs", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=TVL1Parameters().iterations)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0))
    frames = frames_of(options.clip, (options.pairs or (64 if device.type == "cuda" else 24)) + 1)
    say(f"OpenCV on {cores} cores, {options.reference_pairs} pairs")
    solver = opencv_object(TVL1Parameters())
    references, start = [], time.perf_counter()
    for first, second in zip(frames[: options.reference_pairs], frames[1 : options.reference_pairs + 1], strict=True):
        references.append(solver.calc(first, second, None).transpose(2, 0, 1))
    reference_rate = options.reference_pairs / (time.perf_counter() - start)
    wanted = np.stack(references)
    figures = {}
    for mode in ("fixed", "opencv"):
        say(f"mode {mode} on {device}")
        kind = Motion(method="tvl1", parameters={"mode": mode, "iterations": options.iterations})
        method = create(kind, device, cores)
        method.motion(frames[:3], 1)
        method.motion(frames, 1)
        pairs_per_second, flow = rate(method.motion, frames, options.repeats, device)
        agreement = summarise(flow[: len(wanted)], wanted)
        figures[mode] = {"pairs_per_second": round(pairs_per_second, 2)} | {
            key: round(value, 4) for key, value in agreement.items()
        }
    parameters = TVL1Parameters(iterations=options.iterations)
    pixels = sum(height * width for height, width in level_sizes(HEIGHT, WIDTH, parameters))
    updates = pixels * parameters.num_warps * parameters.iterations
    conditions = {"size": f"{WIDTH}x{HEIGHT}", "pairs": len(frames) - 1, "iterations": options.iterations}
    conditions |= {"device": device.type, "modes": figures, "pixel_iterations_per_pair": updates}
    if device.type == "cuda":
        source = torch.empty(1 << 28, dtype=torch.float32, device=device)
        target = torch.empty_like(source)
        target.copy_(source)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            target.copy_(source)
        torch.cuda.synchronize()
        bandwidth = 10 * 2 * source.numel() * 4 / (time.perf_counter() - start)
        floor = bandwidth / (updates * TILED_BYTES)
        conditions |= {"bandwidth_GB_per_s": round(bandwidth / 1e9), "floor_pairs_per_second": round(floor, 1)}
        conditions["share_of_floor"] = round(figures["fixed"]["pairs_per_second"] / floor, 4)
    emit("tvl1", figures["fixed"]["pairs_per_second"], "pairs/s", round(reference_rate, 3), conditions=conditions)


if __name__ == "__main__":
    main()

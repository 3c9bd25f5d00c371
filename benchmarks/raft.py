"""RAFT pairs per second against plain torchvision in eager float32: same frames, pairs, weights and iterations."""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from common import emit, say

from pipeline_lib.configuration.motions import RAFTParameters
from pipeline_lib.flow.endpoint_error import endpoint_error
from pipeline_lib.flow.film import read_video
from pipeline_lib.flow.methods import pair_indices
from pipeline_lib.flow.raft.method import RAFT, pad_frames
from pipeline_lib.flow.raft.weights import load_weights

SHARED = Path(__file__).resolve().parents[2] / "shared"
MEDIA = Path(os.environ.get("PIPELINE_MEDIA", SHARED / "media"))
WEIGHTS = Path(os.environ.get("PIPELINE_WEIGHTS", SHARED / "weights"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=MEDIA / "clips" / "abseiling.mp4")
    parser.add_argument("--model", choices=("large", "small"), default="small")
    parser.add_argument("--weights", default=str(WEIGHTS / "raft-small.pth"))
    parser.add_argument(
        "--pairs", type=int, default=0, help="default: 16 on a CPU, as the stage gives it, 128 on a GPU"
    )
    parser.add_argument("--batch", type=int, default=0, help="pairs per pass (default: 1 on a CPU, 32 on a GPU)")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--autocast-cpu", choices=("bfloat16", "float32"), default="bfloat16", help="what ours computes in on a CPU"
    )
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    count = options.pairs or (128 if cuda else 16)
    batch = options.batch or (32 if cuda else 1)
    video, _ = read_video(options.clip, options.short_side, count + 1)
    frames = torch.from_numpy(video).permute(0, 3, 1, 2).to(device)
    pairs = pair_indices(len(frames), 1)
    raft = RAFT(
        RAFTParameters(
            model=options.model,
            weights=options.weights,
            iterations=options.iterations,
            compile=options.compile,
            autocast_cpu=options.autocast_cpu,
        ),
        device,
    )
    plain = getattr(torchvision.models.optical_flow, f"raft_{options.model}")(weights=None)
    load_weights(plain, options.model, options.weights)
    plain = plain.eval().to(device)

    def reference() -> torch.Tensor:
        padded, (top, left) = pad_frames(frames.float() / 127.5 - 1)
        height, width = frames.shape[-2:]
        fields = []
        with torch.inference_mode():
            for start in range(0, len(pairs), batch):
                stop = min(start + batch, len(pairs))
                flow = plain(padded[start:stop], padded[start + 1 : stop + 1], options.iterations)[-1]
                fields.append(flow[..., top : top + height, left : left + width])
        return torch.cat(fields)

    rates: dict[str, float] = {}
    flows: dict[str, np.ndarray] = {}
    for name, call in (("torchvision", reference), ("ours", lambda: raft.pairs(frames, pairs, batch))):
        say(f"{name} on {device}")
        call()
        best = 0.0
        for _ in range(3):
            start = time.perf_counter()
            flow = call()
            if cuda:
                torch.cuda.synchronize()
            best = max(best, len(pairs) / (time.perf_counter() - start))
        rates[name], flows[name] = best, flow.float().cpu().numpy()
    conditions = {
        "model": options.model,
        "size": f"{frames.shape[3]}x{frames.shape[2]}",
        "pairs": len(pairs),
        "batch": batch,
        "iterations": options.iterations,
        "device": device.type,
        "computes_in": "float16" if cuda else options.autocast_cpu,
        "mean_endpoint_error_to_plain_float32": float(endpoint_error(flows["ours"], flows["torchvision"]).mean()),
    }
    emit("raft", round(rates["ours"], 3), "pairs/s", round(rates["torchvision"], 3), conditions=conditions)


if __name__ == "__main__":
    main()

"""What 8 bits and JPEG cost: stored flow against exact flow on real clips, per JPEG quality.

The value is the mean error at the default quality, the reference that of the 8 bits alone; of pixels within the bound.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from common import emit, say
from tvl1 import MEDIA

from pipeline_lib.configuration.data import Motion
from pipeline_lib.flow.endpoint_error import endpoint_error
from pipeline_lib.flow.film import compute, read_video
from pipeline_lib.flow.quantisation import decode_image, encode_image, stack_channels
from pipeline_lib.flow.tvl1.method import create

QUALITIES = (50, 75, 85, 90, 95, 98, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, default=MEDIA / "clips")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--short-side", type=int, default=256)
    options = parser.parse_args()
    kind = Motion(method="tvl1")
    method = create(kind, torch.device("cpu"), len(os.sched_getaffinity(0)))
    errors: dict[int, list[np.ndarray]] = {quality: [] for quality in QUALITIES}
    sizes: dict[int, list[int]] = {quality: [] for quality in QUALITIES}
    rounding, lengths, clipped = [], [], []
    for clip in sorted(options.clips.iterdir()):
        say(f"{clip.name}: {options.pairs} pairs")
        frames, _ = read_video(clip, options.short_side, 60 + options.pairs + 1)
        fields = compute(method, frames[-options.pairs - 1 :], 1)
        quantised = method.quantisation.quantise(torch.from_numpy(fields))
        # What exceeds the bound is lost whatever the quality: its share is given, its error left out.
        kept = np.abs(fields).max(axis=1) <= kind.bound
        clipped.append(~kept.ravel())
        rounding.append(endpoint_error(method.quantisation.dequantise(quantised.numpy()), fields)[kept])
        lengths.append(np.linalg.norm(fields, axis=1).ravel())
        images = stack_channels(quantised).numpy()
        for quality in QUALITIES:
            jpegs = [encode_image(image, quality) for image in images]
            decoded = np.stack([decode_image(jpeg, fields.shape[-2]) for jpeg in jpegs])
            errors[quality].append(endpoint_error(method.quantisation.dequantise(decoded), fields)[kept])
            sizes[quality] += [len(jpeg) for jpeg in jpegs]
    table = {
        str(quality): {
            "mean_px": round(float(np.concatenate(errors[quality]).mean()), 4),
            "p99_px": round(float(np.percentile(np.concatenate(errors[quality]), 99)), 4),
            "kB_per_frame": round(float(np.mean(sizes[quality])) / 1000, 2),
        }
        for quality in QUALITIES
    }
    conditions = {"bound": kind.bound, "mean_length_px": round(float(np.concatenate(lengths).mean()), 3)}
    conditions |= {"default_quality": kind.jpeg_quality, "by_quality": table}
    conditions["share_clipped"] = round(float(np.concatenate(clipped).mean()), 5)
    value = float(np.concatenate(errors[kind.jpeg_quality]).mean())
    reference = float(np.concatenate(rounding).mean())
    emit("flow_quantisation", round(value, 4), "px", round(reference, 4), False, conditions)


if __name__ == "__main__":
    main()

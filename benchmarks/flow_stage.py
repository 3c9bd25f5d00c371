"""The whole motion stage (decoding, flow, quantisation, JPEGs, the shard) against the device's own rate of flow."""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from common import emit, say
from tvl1 import MEDIA, frames_of

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.specification import MotionSpecification
from pipeline_lib.flow.methods import create_method
from pipeline_lib.flow.motion_stage import extract_motion
from pipeline_lib.media.shards import ShardPart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=MEDIA / "clips" / "abseiling.mp4")
    parser.add_argument("--method", choices=("tvl1", "farneback"), default="tvl1")
    parser.add_argument("--videos", type=int, default=0, help="videos in the shard (default: 3 on a CPU, 32 on a GPU)")
    parser.add_argument("--frames", type=int, default=0, help="frames per video (default: 33 on a CPU, 250 on a GPU)")
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    cores = len(os.sched_getaffinity(0))
    frames = frames_of(options.clip, options.frames or (250 if cuda else 33))
    kind = Motion(method=options.method)
    method = create_method(kind, device, cores)
    size = min(method.pairs_per_call(*frames.shape[1:]) + 1, len(frames))
    method.motion(frames[:size], 1)
    say(f"{options.method} alone on {device}")
    best = 0.0
    for _ in range(2):
        start = time.perf_counter()
        flow = method.motion(frames[:size], 1)
        if cuda:
            torch.cuda.synchronize()
        best = max(best, len(flow) / (time.perf_counter() - start))
    jpegs = [
        simplejpeg.encode_jpeg(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_GRAY2RGB), quality=75)
        for frame in frames
    ]
    num_videos = options.videos or (32 if cuda else 3)
    specification = MotionSpecification(
        dataset="benchmark", frame_format="short256", motion=options.method, motion_kind=kind, device=device.type
    )
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "frames.h5"
        with ShardPart(shard, "benchmark") as part:
            ids = [f"video{index:03d}" for index in range(num_videos)]
            for id in ids:
                part.append(id, jpegs, *frames.shape[1:], 25.0)
            part.finish({"digest": "benchmark"}, ids)
        say(f"the stage: {num_videos} videos of {len(frames)} frames")
        figures = extract_motion(specification, shard, Path(folder) / "motion.h5", cores)
    conditions = {"method": options.method, "device": device.type, "size": f"{frames.shape[2]}x{frames.shape[1]}"}
    conditions |= {"cores": cores, "stage": figures}
    emit("flow_stage", figures["pairs_per_second"], "pairs/s", round(best, 2), conditions=conditions)


if __name__ == "__main__":
    main()

"""A tiny output root for tests: a manifest, frames and motion shards, and trained-looking runs, all made here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import simplejpeg
import torch

from pipeline_lib.artefacts.digest import digest
from pipeline_lib.artefacts.layout import Layout, shard_names
from pipeline_lib.artefacts.records import beside_digests, content_digest, contents_digest
from pipeline_lib.artefacts.sealing import write_sealed_json
from pipeline_lib.artefacts.tables import write_table
from pipeline_lib.configuration.objectives import Classification, Distillation, Model, Objective
from pipeline_lib.configuration.root import Hardware
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.configuration.training import Optimiser, Recipe, Sampling, Schedule
from pipeline_lib.manifests.shard_lists import write_shard_list
from pipeline_lib.media.shards import ShardPart
from pipeline_lib.training.networks import build_network
from pipeline_lib.training.weights import save_weights

CLASSES = ("abseiling", "air drumming", "flipping a pancake")
NUM_SHARDS = 2
HEIGHT, WIDTH = 40, 52
CROP = 32


def frames_of(seed: int, num_frames: int, height: int, width: int) -> np.ndarray:
    """Smooth random frames (T, H, W, 3), so that JPEG keeps them nearly as they are."""
    coarse = np.random.default_rng(seed).uniform(0, 255, size=(num_frames, 3, 5, 6)).astype(np.float32)
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), (height, width), mode="bicubic").clamp(0, 255)
    return np.ascontiguousarray(fine.permute(0, 2, 3, 1).numpy().astype(np.uint8))


def make_tree(root: Path, num_videos: int = 8, motion: bool = False) -> Layout:
    """Manifest and shards of the data set ``tiny``: the first half trains, the rest validates, one is portrait."""
    layout = Layout(root)
    names = shard_names(NUM_SHARDS)
    rows: list[dict[str, Any]] = [
        {
            "id": f"v{index:02d}",
            "path": f"v{index:02d}.mp4",
            "labels": [CLASSES[index % 3]],
            "subset_1": "train" if index < num_videos // 2 else "validation",
            "shard": names[index % NUM_SHARDS],
            "status": "accepted",
            "reason": "",
            "num_frames": 12 + index,
        }
        for index in range(num_videos)
    ]
    rows.append(rows[0] | {"id": "gone", "path": "", "subset_1": "validation", "status": "missing", "reason": "absent"})
    rows.append(rows[0] | {"id": "torn", "subset_1": "validation", "status": "rejected", "reason": "1 frame"})
    layout.manifest_folder("tiny").mkdir(parents=True)
    write_table(layout.manifest("tiny"), pa.Table.from_pandas(pd.DataFrame(rows)))
    summary: dict[str, Any] = {
        "classes": list(CLASSES),
        "digest": digest(rows),
        "provenance": {
            "stage": "manifest",
            "digest": "m" * 64,
            "content": digest(rows),
            "inputs": {"train.csv": "a" * 64},
            "counts": {"accepted": num_videos, "missing": 1, "rejected": 1},
        },
        "counts": {"validation": {"accepted": num_videos - num_videos // 2, "rejected": 1, "missing": 1}},
    }
    write_sealed_json(layout.summary("tiny"), summary)
    for number, name in enumerate(names):
        chosen = [row for row in rows if row["shard"] == name and row["status"] == "accepted"]
        ids = [str(row["id"]) for row in chosen]
        shard_list = layout.shard_list("tiny", name)
        write_shard_list(shard_list, "tiny", name, chosen)
        record = {
            "stage": "extract_frames",
            "digest": f"frames {number}",
            "parameters": {},
            "inputs": {layout.key(shard_list): content_digest(shard_list)},
            "versions": {"ffmpeg": "7.0"},
        }
        part = ShardPart(layout.frames("tiny", "small", name), "x")
        flow_part = ShardPart(layout.motion("tiny", "small", "tvl1", name), "x") if motion else None
        for row in chosen:
            index = int(str(row["id"])[1:])
            height, width = (WIDTH, HEIGHT) if index == num_videos - 1 else (HEIGHT, WIDTH)
            count = 12 + index
            frames = frames_of(index, count, height, width)
            encoded = [simplejpeg.encode_jpeg(frame, quality=95, colorsubsampling="444") for frame in frames]
            part.append(str(row["id"]), encoded, height, width, 25.0)
            if flow_part is not None:
                half = -(-height // 8) * 8
                planes = np.full((2 * half, width, 1), 128, dtype=np.uint8)
                planes[:height] += 10 + index
                planes[half:] -= 20
                jpeg = simplejpeg.encode_jpeg(planes, quality=95, colorspace="GRAY", colorsubsampling="Gray")
                flow_part.append(str(row["id"]), [jpeg] * count, height, width, 25.0)
        part.finish(record, ids)
        if flow_part is not None:
            quantisation = {"channels": ["u", "v"], "bound": 20.0, "zero": 128, "scale": 127, "unit": "px"}
            parameters = {"bound": 20.0, "quantisation": quantisation, "motion": {"method": "tvl1"}}
            frames_shard = layout.frames("tiny", "small", name)
            inputs = {layout.key(frames_shard): content_digest(frames_shard)}
            record = {"stage": "extract_motion", "digest": f"motion {number}", "parameters": parameters}
            flow_part.finish(record | {"inputs": inputs, "versions": {}}, ids)
    return layout


def training_specification(
    experiment: str,
    modality: str = "rgb",
    seed: int = 0,
    objective: Objective | None = None,
    stage: str = "train_baseline",
    teacher: TrainingSpecification | None = None,
) -> TrainingSpecification:
    """A specification on the data set ``tiny``."""
    return TrainingSpecification(
        experiment=experiment,
        stage=stage,
        split=1,
        seed=seed,
        dataset="tiny",
        horizontal_flip="allowed",
        num_shards=NUM_SHARDS,
        frame_format="small",
        modality=modality,
        motion="tvl1" if modality == "flow" else None,
        motion_kind=None,
        model=Model(name="s3dg_slim", options={"depth_multiplier": 0.1}),
        recipe=Recipe(
            source="test",
            optimiser=Optimiser(),
            schedule=Schedule(base_rate=0.1),
            steps=2,
            global_batch=2,
            sampling=Sampling(num_frames=8, crop=CROP, short_side=(HEIGHT, HEIGHT)),
        ),
        objective=objective or (Distillation() if teacher else Classification()),
        teacher=teacher,
        start="random",
        hardware=Hardware(device="cpu", num_threads=1),
    )


def make_run(layout: Layout, specification: TrainingSpecification, classes: Sequence[str] = CLASSES) -> torch.nn.Module:
    """Random weights under the run's name, with a training log; returns the network in evaluation mode."""
    torch.manual_seed(sum(specification.experiment.encode()) + specification.seed)
    network = build_network(specification.model, len(classes), specification.modality)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            # Fresh statistics would shrink the activations layer by layer until all logits are equal.
            module.running_var.fill_(1e-3)  # type: ignore[union-attr]
    # Logits that differ clearly from clip to clip.
    parameters = dict(network.named_parameters())
    parameters[[name for name in parameters if name.endswith("weight")][-1]].data.mul_(40)
    folder = layout.experiment(specification.experiment, str(specification.split), str(specification.seed))
    shards = layout.frames("tiny", "small", "*")
    if specification.modality == "flow":
        shards = layout.motion("tiny", "small", "tvl1", "*")
    summary = layout.summary("tiny")
    inputs = {layout.key(shards): contents_digest(sorted(shards.parent.glob(shards.name)))}
    if specification.start != "random":
        source = layout.start(specification.start)
        inputs[layout.key(source)] = content_digest(source)
    lines = [{"step": step, "total": 2.0 / step, "rate": 0.1} for step in range(1, 9)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_weights(
        folder / "weights.safetensors",
        network.state_dict(),
        {
            "specification": specification.model_dump(mode="json"),
            "classes": list(classes),
            "provenance": {
                "stage": specification.stage,
                "digest": "t" * 64,
                "inputs": inputs,
                "beside": {layout.key(summary): content_digest(summary)} if summary.exists() else {},
                "library": "0.1.0",
                "versions": {"torch": torch.__version__},
                **beside_digests([folder / "metrics.jsonl"]),
            },
        },
    )
    return network.eval()

"""A small packed data set, written without the stages that normally make one: frames, exact flow, manifest."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import simplejpeg

from pipeline_lib.artefacts.layout import Layout, shard_names
from pipeline_lib.artefacts.sealing import write_sealed_json
from pipeline_lib.artefacts.tables import write_table
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.flow.quantisation import Quantisation
from pipeline_lib.flow.strength_stage import measure_strength
from pipeline_lib.media.shards import ShardPart

CLASSES = ("down", "left", "right", "up")
MODIST_COLOURS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "jitter": 0.8, "grey": 0.2, "blur": 0.5}
VELOCITIES = {"down": (0.0, 2.0), "left": (-2.0, 0.0), "right": (2.0, 0.0), "up": (0.0, -2.0)}


@dataclass(frozen=True)
class PackedSet:
    root: Path
    name: str
    num_shards: int

    @property
    def layout(self) -> Layout:
        return Layout(self.root)


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    colour, subsampling = ("RGB", "420") if image.shape[2] == 3 else ("GRAY", "gray")
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, colour, subsampling)
    return encoded


def motion_jpeg(flow_HW2: np.ndarray, bound: float) -> bytes:
    height, width = flow_HW2.shape[:2]
    half = math.ceil(height / 8) * 8
    stored = np.full((2 * half, width, 1), 128, dtype=np.uint8)
    for channel in range(2):
        value = np.round(127 * np.clip(flow_HW2[..., channel] / bound, -1, 1)) + 128
        stored[channel * half : channel * half + height, :, 0] = value
    return jpeg(stored, 95)


def moving_square(
    label: str, num_frames: int, height: int, width: int, random: np.random.Generator
) -> tuple[list[bytes], list[bytes]]:
    background = random.integers(20, 90, size=(height, width, 3)).astype(np.uint8)
    colour = random.integers(150, 255, size=3)
    x0, y0 = random.uniform(0, width), random.uniform(0, height)
    u, v = VELOCITIES[label]
    side = 14
    frames, motion = [], []
    for t in range(num_frames):
        image = background.copy()
        flow = np.zeros((height, width, 2), dtype=np.float32)
        rows = (np.arange(side) + int(y0 + v * t)) % height
        columns = (np.arange(side) + int(x0 + u * t)) % width
        image[np.ix_(rows, columns)] = colour
        flow[np.ix_(rows, columns)] = (u, v)
        frames.append(jpeg(image))
        motion.append(motion_jpeg(flow, 4.0))
    return frames, motion


def make_packed_set(
    root: Path,
    name: str = "squares",
    num_train: int = 24,
    num_validation: int = 8,
    num_shards: int = 2,
    lengths: tuple[int, ...] = (12,),
    shape: tuple[int, int] = (36, 48),
    seed: int = 0,
    without_motion: tuple[str, ...] = (),
) -> PackedSet:
    """Videos ``v000`` … of moving squares; ``lengths`` are used in turn."""
    layout = Layout(root)
    random = np.random.default_rng(seed)
    shards = shard_names(num_shards)
    frames = {shard: ShardPart(layout.frames(name, "short36", shard), "test") for shard in shards}
    motion = {shard: ShardPart(layout.motion(name, "short36", "exact", shard), "test") for shard in shards}
    rows = []
    for number in range(num_train + num_validation):
        id, label, shard = f"v{number:03d}", CLASSES[number % len(CLASSES)], shards[number % num_shards]
        length = lengths[number % len(lengths)]
        images, flows = moving_square(label, length, *shape, random)
        frames[shard].append(id, images, *shape, 25.0)
        if id in without_motion:
            motion[shard].reject(id, "no motion in this test")
        else:
            motion[shard].append(id, flows, *shape, 25.0)
        subset = "train" if number < num_train else "validation"
        rows.append(
            {
                "id": id,
                "path": f"{id}.mp4",
                "labels": [label],
                "subset_1": subset,
                "num_frames": length,
                "frames_per_second": 25.0,
                "height": shape[0],
                "width": shape[1],
                "shard": shard,
                "status": "accepted",
                "reason": "",
            }
        )
    stored = {"bound": 4.0, "quantisation": Quantisation(("u", "v"), 4.0).attributes()}
    for parts, parameters in ((frames, {}), (motion, stored)):
        for part in parts.values():
            order = sorted(part.done)
            part.finish({"digest": "test", "parameters": parameters}, order)
    rows.append({**rows[0], "id": "gone", "status": "missing", "path": "", "reason": "not found"})
    layout.manifest_folder(name).mkdir(parents=True, exist_ok=True)
    write_table(layout.manifest(name), pa.Table.from_pandas(pd.DataFrame(rows)))
    write_sealed_json(layout.summary(name), {"classes": list(CLASSES), "digest": "test"})
    return PackedSet(root, name, num_shards)


def tiny_training(packed: PackedSet, **changes: object) -> TrainingSpecification:
    """A specification that trains on ``packed`` in seconds; ``recipe`` changes are merged, others replace."""
    recipe = {
        "source": "test",
        "optimiser": {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4},
        "schedule": {"name": "step", "base_rate": 0.05, "milestones": [6]},
        "steps": 8,
        "global_batch": 4,
        "batch_norm_momentum": 0.2,
        "sampling": {"num_frames": 8, "crop": 32, "short_side": [36, 36]},
        "dropout": 0.2,
        "checkpoint_steps": 3,
        "log_steps": 1,
    }
    recipe_changes = changes.pop("recipe", {})
    assert isinstance(recipe_changes, dict)
    for key, value in recipe_changes.items():
        recipe[key] = (
            {**recipe[key], **value} if isinstance(value, dict) and isinstance(recipe.get(key), dict) else value
        )  # type: ignore[dict-item]
    specification = {
        "experiment": "tiny",
        "stage": "train_baseline",
        "split": 1,
        "seed": 0,
        "dataset": packed.name,
        "horizontal_flip": "forbidden",
        "num_shards": packed.num_shards,
        "frame_format": "short36",
        "modality": "rgb",
        "motion": None,
        "motion_kind": None,
        "model": {"name": "s3dg_slim", "options": {"depth_multiplier": 0.0625, "minimum_depth": 4}},
        "recipe": recipe,
        "objective": {"name": "classification"},
        "teacher": None,
        "start": "random",
        "hardware": {"device": "cpu", "num_threads": 1},
        **changes,
    }
    return TrainingSpecification.model_validate_json(json.dumps(specification, default=_plain))


def tiny_teacher(packed: PackedSet, **changes: object) -> TrainingSpecification:
    """As ``tiny_training``, on the exact flow."""
    flow = {"experiment": "flow_tiny", "stage": "train_teacher", "modality": "flow", "motion": "exact"}
    return tiny_training(packed, **{**flow, **changes})


def measure_strengths(packed: PackedSet) -> None:
    """The strength tables beside the motion shards, as the rule ``motion_strength`` makes them."""
    for shard in shard_names(packed.num_shards):
        place = (packed.name, "short36", "exact", shard)
        measure_strength(packed.layout.motion(*place), packed.layout.strength(*place))


def tiny_modist(packed: PackedSet, **changes: object) -> TrainingSpecification:
    """As ``tiny_training``: two pathways that learn by contrast; ``objective`` changes are merged too."""
    objective = {
        "name": "modist",
        "bank_size": 10,
        "momentum": 0.9,
        "dimension": 8,
        # The recorded losses belong to heads as wide as the features and to blocks that do not start as shortcuts.
        "hidden_width": None,
        "motion_network": {
            "name": "modist_motion_r50",
            "options": {"depth": 18, "width": 8, "zero_init_final_norm": False},
        },
        "motion_frames": 4,
        "motion_stride": 2,
    }
    kind = {"method": "tvl1", "gap": 1, "bound": 4.0}
    given = {"experiment": "modist_tiny", "stage": "pretrain", "motion": "exact", "motion_kind": kind, **changes}
    given["objective"] = {**objective, **changes.get("objective", {})}  # type: ignore[dict-item]
    recipe = {"dropout": 0.0, "synchronise_batch_norm": True, "batch_norm_momentum": None}
    sampling = {"num_frames": 4, "stride": 2, "crop": 32, "short_side": [36, 40], "colours": MODIST_COLOURS}
    given["recipe"] = {**recipe, "sampling": sampling, **changes.get("recipe", {})}  # type: ignore[dict-item]
    model = {"name": "modist_r18", "options": {"width": 8, "zero_init_final_norm": False}}
    return tiny_training(packed, **{"model": model, **given})


def _plain(value: object) -> object:
    assert isinstance(value, TrainingSpecification)
    return value.model_dump(mode="json")

"""Recipes: how a network is trained."""

from collections.abc import Iterator
from math import inf
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline_lib.configuration.base import Section


class Optimiser(Section):
    """The optimiser and its constants."""

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    """SGD's momentum; AdamW's first β."""
    beta2: float = Field(default=0.999, gt=0, lt=1)
    """AdamW's second β."""
    nesterov: bool = False
    weight_decay: float = Field(default=1e-7, ge=0)
    weight_decay_norm: float | None = Field(default=None, ge=0)
    """Decay of normalisation weights and biases; null means the same as ``weight_decay``."""
    clip_gradient_norm: float | None = Field(default=None, gt=0)


class Schedule(Section):
    """Learning rate over the steps."""

    name: Literal["step", "cosine"] = "step"
    base_rate: float = Field(gt=0)
    """Rate at the recipe's global batch, or at a batch of ``per_clips``."""
    per_clips: int | None = Field(default=None, ge=1)
    """Clips for which the rates are given; the trainer multiplies them by the global batch over this number (Goyal et
    al. 2017, section 2.1: the linear scaling rule). Null: they are those of the recipe's own global batch."""
    milestones: list[int] = []
    """Steps at which the rate is multiplied by ``factor``; of ``step`` alone."""
    factor: float = 0.1
    restarts: list[int] = []
    """Steps at which the rate starts at ``base_rate`` again (I3D's flow stream); later milestones count from there. Of
    ``step`` alone."""
    warmup_steps: int = Field(default=0, ge=0)
    warmup_start_rate: float = Field(default=0.0, ge=0)
    """Scaled by ``per_clips`` as ``base_rate`` is."""

    @model_validator(mode="after")
    def _cosine_has_no_steps(self) -> "Schedule":
        # An experiment that changes a recipe to cosine would keep them, though nothing reads them.
        for name in ("milestones", "restarts"):
            if self.name == "cosine" and getattr(self, name):
                raise ValueError(f"{name}: {getattr(self, name)} belong to the schedule `step`; with cosine set []")
        return self


class Colours(Section):
    """How the colours of a training clip change, all its frames alike; drawn for each clip (MoDist, section 4.1)."""

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Ratio: the factor is drawn from [1 − ratio, 1 + ratio]."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """The same for contrast."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """The same for saturation."""
    jitter: float = Field(default=0.0, ge=0, le=1)
    """Probability that brightness, contrast and saturation change; they do so together."""
    grey: float = Field(default=0.0, ge=0, le=1)
    """Probability that a clip turns grey."""
    blur: float = Field(default=0.0, ge=0, le=1)
    """Probability of a Gaussian blur, whose σ is drawn from [0.1, 2] pixels."""

    @model_validator(mode="after")
    def _jitter_has_ratios(self) -> "Colours":
        if (self.jitter > 0) != any((self.brightness, self.contrast, self.saturation)):
            raise ValueError(
                f"jitter: {self.jitter} is the probability that brightness, contrast and saturation change by their "
                "ratios; set it and a ratio above 0, or neither"
            )
        return self


class RandAugment(Section):
    """RandAugment of RGB training clips (Cubuk et al. 2020), torchvision's, the same for all frames of a clip."""

    num_ops: int = Field(default=2, ge=1)
    """Operations that a clip goes through, one after the other."""
    magnitude: int = Field(default=9, ge=0, le=30)
    """How strong they are, of 31 levels."""
    operations: Literal["all", "colours"] = "all"
    """``all`` of torchvision's. ``colours`` leaves out those that move pixels (shear, translation, rotation), after
    which flow beside the clip would not be that of its frames."""


class Erasing(Section):
    """Random erasing (Zhong et al. 2020), torchvision's: a rectangle of a training clip, the same in all its frames.

    The erased pixels are zeros of the network's input (mid-grey, or no motion), in RGB and flow alike.
    """

    probability: float = Field(default=0.25, gt=0, le=1)
    """Of a clip to lose a rectangle."""
    area: tuple[float, float] = (0.02, 0.33)
    """Range of its share of the clip's area."""
    aspect: tuple[float, float] = (0.3, 3.3)
    """Range of its height over its width, drawn on a logarithmic scale."""

    @model_validator(mode="after")
    def _ranges(self) -> "Erasing":
        for name, (low, high), most in (("area", self.area, 1.0), ("aspect", self.aspect, inf)):
            if not 0 < low <= high <= most or high == inf:
                raise ValueError(f"{name}: {[low, high]} is no range of positive numbers, smaller one first")
        return self


class Mixing(Section):
    """MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a step's clips, as torchvision's.

    Each clip is mixed with the one before it in the global batch, by one λ a step; the loss is
    λ · loss(own label) + (1 − λ) · loss(the other's label). A teacher sees the same mixture as its student.
    """

    mixup: float = Field(default=0.0, ge=0)
    """α of MixUp's λ ~ Beta(α, α); 0 leaves MixUp out."""
    cutmix: float = Field(default=0.0, ge=0)
    """α of CutMix; 0 leaves CutMix out. With both, a step takes either with equal probability."""
    probability: float = Field(default=1.0, gt=0, le=1)
    """Of a step to mix its clips."""

    @model_validator(mode="after")
    def _mixes(self) -> "Mixing":
        if not (self.mixup or self.cutmix):
            raise ValueError("mixup: 0 and cutmix 0 mix nothing; set one above 0, or leave `mixing` out")
        return self


PastEnd: TypeAlias = Literal["loop", "clamp", "pad"]
"""What a clip holds beyond the end of its video: the video again from its start (I3D, section 3.1: "looping the video
as many times as necessary"), its last frame again (PySlowFast's ``temporal_sampling`` in datasets/decoder.py), or
nothing, which is zeros of the network's input."""

SHORT_SIDE = (256, 256)

LEAST_BATCH = 2
"""Clips to which a trial shrinks a batch at most: one clip has nothing to be normalised with or contrasted to."""
LEAST_SHARED_BATCH = 8
"""The same where the GPUs of a machine share each batch normalisation: one clip for each of eight."""


class Sampling(Section):
    """Which frames and pixels a clip holds. Evaluation and prediction follow it in all that is not drawn at random."""

    num_frames: int = Field(default=64, ge=1)
    stride: int = Field(default=1, ge=1)
    """Distance of two frames of a clip: in stored frames, or in units of 1 / ``frames_per_second`` seconds."""
    frames_per_second: float | None = Field(default=None, gt=0)
    """The rate at which ``stride`` counts, whatever the rate of the stored frames: at 30, a stride of 8 is 8/30 seconds
    (``TARGET_FPS`` of PySlowFast). Null counts stored frames."""
    spacing: Literal["stride", "segments"] = "stride"
    """``stride`` takes a part of the video. ``segments`` cuts the whole video into ``num_frames`` equal segments and
    takes one frame of each: a random one in training, the middle one in evaluation. It reads neither ``stride`` nor
    ``frames_per_second``."""
    past_end: PastEnd = "loop"
    """What a clip holds beyond the end of a video that is shorter: ``loop`` the video again, ``clamp`` its last frame,
    ``pad`` zeros of the network's input (mid-grey, or no motion)."""
    crop: int = Field(default=224, ge=16)
    """Side of the square crop, pixels."""
    resize: tuple[int, int] | None = None
    """Height and width, pixels: every frame is resized to exactly this before the crop; its aspect is not kept. Without
    ``short_side``."""
    short_side: tuple[int, int] | None = None
    """The frame's short side is resized to a value drawn from this range before the crop, aspect kept; evaluation takes
    the lower one. Null is [256, 256], or nothing with ``resize``."""
    flip: bool = True
    """Whether training clips are mirrored at random, where the data set's ``horizontal_flip`` allows it."""
    area: tuple[float, float] | None = None
    """Training clips are random resized crops whose share of the stored frame's area lies in this range; training then
    uses neither ``short_side`` nor ``resize``, which evaluation follows all the same."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the width over the height of what ``area`` cuts out, drawn on a logarithmic scale."""
    augmentation: Literal["standard", "none"] = "standard"
    """``standard`` crops and mirrors at random, ``none`` takes the centre."""
    colours: Colours | None = None
    """How the colours of RGB training clips change; null leaves them."""
    rand_augment: RandAugment | None = None
    """RandAugment of RGB training clips, before ``colours``; null leaves it out."""
    erasing: Erasing | None = None
    """Random erasing of training clips; null leaves it out."""

    @field_validator("short_side")
    @classmethod
    def _a_size_is_set(cls, value: tuple[int, int] | None, info: ValidationInfo) -> tuple[int, int] | None:
        return SHORT_SIDE if value is None and info.data.get("resize") is None else value

    @model_validator(mode="after")
    def _crop_fits(self) -> "Sampling":
        if self.resize is not None:
            if self.short_side is not None:
                raise ValueError(
                    f"resize: {list(self.resize)} and short_side {list(self.short_side)} exclude each other; set one "
                    "of them to null"
                )
            if min(self.resize) < self.crop:
                raise ValueError(f"crop: {self.crop} does not fit into resize, {list(self.resize)} (height, width)")
            return self
        assert self.short_side is not None
        low, high = self.short_side
        if low > high:
            raise ValueError(f"short_side: {[low, high]} runs from the larger value to the smaller")
        if low < self.crop:
            raise ValueError(f"crop: {self.crop} does not fit into the smallest short_side, {low}")
        return self

    @model_validator(mode="after")
    def _colours_are_an_augmentation(self) -> "Sampling":
        for name in ("colours", "rand_augment", "erasing"):
            if getattr(self, name) is not None and self.augmentation == "none":
                raise ValueError(f"{name}: drawn at random, but augmentation is `none`; leave one of them out")
        return self

    @model_validator(mode="after")
    def _area_is_possible(self) -> "Sampling":
        low, high = self.aspect
        if not 0 < low <= high < inf:
            raise ValueError(f"aspect: {[low, high]} is no range of positive numbers, smaller one first")
        if self.area is None:
            return self
        low, high = self.area
        if not 0 < low <= high <= 1:
            raise ValueError(f"area: {[low, high]} is no range of shares of the frame, 0 < smaller ≤ larger ≤ 1")
        if self.augmentation == "none":
            raise ValueError("area: drawn at random, but augmentation `none` takes the centre; leave one of them out")
        return self


class Recipe(Section):
    """A training recipe. Constants carry their source in the YAML's comments."""

    source: str
    """Where the constants come from (paper and section)."""
    optimiser: Optimiser
    schedule: Schedule
    steps: int = Field(ge=1)
    global_batch: int = Field(ge=1)
    """Clips per optimiser step over all devices."""
    batch_norm_batch: int | None = Field(default=None, ge=1)
    """Clips that one batch normalisation sees; also the size of a micro-batch. Null takes all clips of a device."""
    synchronise_batch_norm: bool = False
    """Batch normalisation sees the micro-batches of all processes together."""
    batch_norm_momentum: float | None = Field(default=None, gt=0, le=1)
    """Overrides the network's; short runs need a larger one than the papers' 0.001."""
    reestimate_batch_norm: int = Field(default=0, ge=0)
    """Training batches over which the running statistics are computed again at the end; 0 keeps them."""
    sampling: Sampling
    mixing: Mixing | None = None
    """MixUp and CutMix of the clips of a step; null leaves them out."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Probability of dropping a feature before the classifier."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Autocast type on a GPU; the CPU always trains in float32."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    log_steps: int = Field(default=10, ge=1)
    """A line of metrics.jsonl holds the means over this many steps."""
    checkpoint_steps: int = Field(default=500, ge=1)
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the last ones are kept; the best one is kept as well."""
    validation_steps: int | None = Field(default=None, ge=0)
    """Judge the network on the validation list every so many steps; 0 never does. Null draws a curve alone: ten times
    in a training, on a fixed part of the list, which costs a fiftieth of the training at most and decides nothing."""
    validation_videos: int | None = Field(default=None, ge=1)
    """With ``validation_steps``: how many videos of that list are judged, on one central clip each; null takes all."""
    final_weights: Literal["last", "best"] = "last"
    """``best`` keeps those of the checkpoint with the least validation loss, or without validation the least training
    loss."""
    maximum_skipped_steps: int = Field(default=0, ge=0)
    """Steps with a non-finite loss that are skipped before the run stops."""

    @model_validator(mode="after")
    def _a_group_fits(self) -> "Recipe":
        if self.batch_norm_batch is not None and self.batch_norm_batch > self.global_batch:
            raise ValueError(
                f"batch_norm_batch: {self.batch_norm_batch} is more than global_batch, {self.global_batch}; set at "
                "most that, or null"
            )
        return self

    @model_validator(mode="after")
    def _a_clip_has_another(self) -> "Recipe":
        if self.mixing is not None and self.global_batch < 2:
            raise ValueError("mixing: a clip is mixed with another of its batch, and global_batch is 1; set at least 2")
        return self

    def shrunk(self, trial: float) -> "Recipe":
        """The recipe with every number of steps, and the batch, multiplied by ``trial``; its shape stays.

        The rates follow the batch in proportion (Goyal et al. 2017, section 2.1). A batch of more than one group of
        batch normalisation keeps whole groups.

        Args:
            trial: in (0, 1]; 1 gives the recipe itself.
        """
        if trial == 1.0:
            return self

        def shorter(steps: int) -> int:
            return max(1, round(steps * trial))

        schedule, size = self.schedule, self.batch_norm_batch
        least = LEAST_SHARED_BATCH if self.synchronise_batch_norm else LEAST_BATCH
        batch = min(self.global_batch, max(least, round(self.global_batch * trial)))
        if size is not None:
            batch -= batch % size if batch > size else 0
            size = min(size, batch)
        return self.model_copy(
            update={
                "steps": shorter(self.steps),
                "global_batch": batch,
                "batch_norm_batch": size,
                "validation_steps": shorter(self.validation_steps) if self.validation_steps else self.validation_steps,
                "reestimate_batch_norm": shorter(self.reestimate_batch_norm) if self.reestimate_batch_norm else 0,
                "schedule": schedule.model_copy(
                    update={
                        "milestones": [shorter(step) for step in schedule.milestones],
                        "restarts": [shorter(step) for step in schedule.restarts],
                        "warmup_steps": round(schedule.warmup_steps * trial),
                        "per_clips": schedule.per_clips or self.global_batch,
                    }
                ),
            }
        )


def motion_problems(recipe: Recipe, modality: str, beside: bool) -> Iterator[tuple[str, str]]:
    """Keys of a recipe that do not suit motion in its clips, and why.

    Args:
        recipe: with its changes.
        modality: what the trained network sees.
        beside: whether the teacher or the loss sees motion of the same frames.
    """
    asked = recipe.sampling.rand_augment
    if asked is None:
        return
    if modality == "flow":
        yield (
            "sampling",
            "rand_augment: flow has no colours, and turned or stretched flow would need other vectors; leave it out, "
            "or use `erasing` and `mixing`, which suit flow",
        )
    elif beside and asked.operations == "all":
        yield (
            "sampling",
            "rand_augment.operations: `all` moves the pixels of the RGB clip, and the flow of the same frames, which "
            "teaches, stays where it is; set `colours`",
        )


def merged(base: Any, changes: Any) -> Any:
    """``base`` with ``changes``: mappings are merged key by key, everything else is replaced."""
    if isinstance(base, dict) and isinstance(changes, dict):
        return base | {name: merged(base.get(name), value) for name, value in changes.items()}
    return changes

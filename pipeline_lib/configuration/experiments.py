"""Experiments, objectives, protocols: what is trained from what, and how it is judged."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline_lib.configuration.base import Section

PUBLISHERS = ("torchvision/", "slim/", "pyslowfast/", "maclr/", "kylemin/")
"""How the names of public weights start (pipeline_lib/models/importing/publishers.py lists them)."""


class Model(Section):
    """A network by name, with the options of its family."""

    name: str
    options: dict[str, Any] = {}
    """Keyword arguments of the family's builder (``depth_multiplier``, ``gating`` …), checked by it."""


class Classification(Section):
    """Cross-entropy on the labels."""

    name: Literal["classification"] = "classification"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    frozen: bool = False
    """Train the classifier alone, on features in eval mode: the linear protocol of self-supervised learning."""
    standardised: bool = False
    """Of a frozen trunk: the classifier sees each feature with the batch's mean and deviation taken out, as in MAE's
    linear protocol (He et al. 2022, appendix A.1). The final weights hold one linear layer that does the same."""


class Distillation(Section):
    """D3D, equations 1 and 2: cross-entropy + weight · distance(student, teacher)."""

    name: Literal["distillation"] = "distillation"
    endpoint: str = "logits"
    weight: float = Field(default=1.0, ge=0)
    """λ of equation 1."""
    distance: Literal["mse", "mse_literal", "kl"] = "mse"
    """``mse`` is the mean over all elements; ``mse_literal`` reads equation 2 to the letter (sum / (N − 1))."""
    temperature: float = Field(default=1.0, gt=0)
    action_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy; 0 is the paper's variant without action loss."""
    pooled: bool = False
    """Average an endpoint over time and space before the distance, as MARS does (Crasto et al. 2019)."""


class FlowRegression(Section):
    """A flow decoder on an endpoint, trained beside the action loss (D3D, section 3.1)."""

    name: Literal["flow_regression"] = "flow_regression"
    endpoint: str = "MaxPool_3a_3x3"
    """Where the decoder attaches; Table 6's flow rows use the paper's layer 3A."""
    decoder: Literal["simple", "spatial", "pwc", "none"] = "pwc"
    """Section 4.1 says the Simple decoder, section 5.6 the PWC one. ``none``: the endpoint is a prediction itself (the
    endpoint ``predicted_flow`` of ``s3dg_predicted_flow``)."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of the flow loss."""
    action_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy; 0 trains on the flow alone."""
    freeze: bool = False
    """Train the decoder alone, on a network that stays as it is: how much motion its features hold (section 3.2)."""


class MotionDistillation(Section):
    """MoDist's contrastive objectives between a visual and a motion pathway (its section 3.1); no label is used."""

    name: Literal["modist"] = "modist"
    losses: list[Literal["visual", "motion", "cross"]] = Field(default=["visual", "motion", "cross"], min_length=1)
    """Terms of equation 3: Lv, Lm, Lmv. ``[visual]`` is the paper's RGB-only baseline."""
    temperature: float = Field(default=0.1, gt=0)
    """τ of equation 1."""
    bank_size: int = Field(default=65536, ge=1)
    """Rows of each memory bank."""
    momentum: float = Field(default=0.999, ge=0, lt=1)
    """λ of the momentum networks."""
    dimension: int = Field(default=128, ge=1)
    """Of the embeddings."""
    num_hidden: int = Field(default=1, ge=0)
    """Hidden layers of the projection heads, whose number the paper does not print; CVRL has 3, MoCo v2 one."""
    projection_norm: bool = False
    """Batch normalisation in the projection heads, as in SimCLR's; the paper does not say whether it has any."""
    motion_network: Model = Model(name="modist_motion_r50")
    """The motion pathway; it is left behind after the pre-training."""
    motion_frames: int = Field(default=16, ge=1)
    motion_stride: int = Field(default=4, ge=1)
    threshold: float = Field(default=0.02, ge=0, lt=1)
    """γ: a motion clip's mean must exceed this share of the motion kind's bound; 0 takes any clip."""
    jitter: bool = True
    """Draw each clip's time on its own; false aligns vq with mk, and vk with mq."""

    @property
    def sees_motion(self) -> bool:
        """Whether there is a motion pathway."""
        return self.losses != ["visual"]


Objective = Annotated[Classification | Distillation | FlowRegression | MotionDistillation, Field(discriminator="name")]


class Experiment(Section):
    """One training run per split and seed."""

    description: str
    stage: Literal["train_teacher", "train_baseline", "pretrain", "distill", "finetune"]
    """The rule that runs it."""
    dataset: str
    frame_format: str
    modality: Literal["rgb", "flow"] = "rgb"
    """What the network sees."""
    motion: str | None = None
    """The motion kind that the network or its teacher sees."""
    model: Model
    recipe: str
    recipe_changes: dict[str, Any] = {}
    """Values that replace the recipe's, e.g. ``{sampling: {num_frames: 16}}``."""
    objective: Objective = Classification()
    teacher: str | None = None
    """Experiment whose frozen network teaches."""
    initialise_from: str | None = None
    """Experiment, or ``imported/NAME`` weights, to start from; null is random. A public source by its own name
    (``torchvision/s3d``) means ``imported/torchvision/s3d``."""
    splits: list[int] = [1]
    seeds: list[int] = [0]
    train_share: float = Field(default=1.0, gt=0, le=1)
    """Share of each class's training videos that is used, the same in every run (low-shot learning)."""
    protocols: list[str] = ["ten_clips"]
    """How it is evaluated; a pre-training without a classifier has none."""
    retrieval: str | None = None
    """Protocol whose clips stand for a video in nearest-neighbour retrieval (R@1, 5, 10) and k-NN; null: neither."""
    paper: dict[str, Any] = {}
    """The paper's table and numbers, shown beside ours."""

    @field_validator("initialise_from")
    @classmethod
    def _public_source(cls, value: str | None) -> str | None:
        return f"imported/{value}" if value is not None and value.startswith(PUBLISHERS) else value


class Ensemble(Section):
    """Mean of the members' softmax scores, from their score files alone."""

    description: str
    stage: Literal["ensemble"] = "ensemble"
    members: list[str] = Field(min_length=2)
    """Experiments; ``NAME@SEED`` takes one seed of it (two seeds of one network are an ensemble too)."""
    protocols: list[str] = ["ten_clips"]
    paper: dict[str, Any] = {}


class Target(Section):
    """A named set of experiments that is trained, evaluated and reported together."""

    description: str
    experiments: list[str] = Field(min_length=1)
    compare: list[tuple[str, str]] = []
    """Pairs of experiments whose difference the report shows; empty takes each student against its baselines."""
    notes: list[str] = []
    """Sentences under the report's title."""


class Protocol(Section):
    """How a trained network is evaluated."""

    num_clips: int | Literal["all_frames"] = 10
    """Uniformly spaced clips per video, or one clip of all frames, as S3D-G and D3D are evaluated."""
    num_crops: Literal[1, 3] = 1
    num_frames: int | None = None
    """Frames per clip; null takes the recipe's."""
    crop: int | None = None
    """Side of the crop, pixels; null takes the recipe's."""
    reverse: bool = False
    """Play the clips backwards (arrow of time)."""
    subset: Literal["validation", "train"] = "validation"
    """Which list is evaluated; ``train`` shows what a network has memorised."""

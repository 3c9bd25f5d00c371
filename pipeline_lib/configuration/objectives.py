"""Objectives: what a training minimises, and what each needs from the rest of the pipeline.

No other code asks for an objective's name: it reads the properties that are declared here.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline_lib.configuration.base import Section
from pipeline_lib.configuration.training import Recipe


class Model(Section):
    """A network by name, with the options of its family."""

    name: str
    options: dict[str, Any] = {}
    """Keyword arguments of the family's builder (``depth_multiplier``, ``gates`` …), checked by it."""


class ObjectiveSettings(Section):
    """What an objective needs and gives; a new one overrides what differs."""

    name: str
    module: ClassVar[str]
    """The implementation, with ``build(specification) -> TrainingObjective``; only the trainer imports it."""
    task: ClassVar[str | None] = "classification"
    """The task by which its networks are judged; None: they are judged only after fine-tuning."""
    has_classifier: ClassVar[bool] = True
    """Whether the network ends in a classifier; otherwise it ends in pooled features."""
    needs_teacher: ClassVar[bool] = False
    """Whether a frozen network of another experiment teaches."""
    needs_flow: ClassVar[bool] = False
    """Whether the motion that its loss reads must be a displacement."""
    modalities: ClassVar[tuple[str, ...]] = ("rgb", "flow")
    """What the trained network may see."""
    unsuited: ClassVar[dict[str, str]] = {}
    """Augmentations that its loss cannot learn under (``rand_augment``, ``erasing``, ``mixing``), and why."""

    @property
    def reads_motion(self) -> bool:
        """Whether its loss needs motion, apart from what network and teacher see."""
        return False

    @property
    def needs_strength(self) -> bool:
        """Whether it reads the tables with the strength of each frame's motion."""
        return False

    @property
    def is_frozen(self) -> bool:
        """Whether only the classifier or decoder is trained."""
        return False

    @property
    def networks(self) -> dict[str, Model]:
        """Further networks that are trained too, by the key that names them."""
        return {}

    @property
    def clip_lengths(self) -> dict[str, int]:
        """Frames of the clips that each of these sees."""
        return {}

    @property
    def passes(self) -> int:
        """Cost of a training step in forward passes of the network; a backward pass counts as two."""
        return 1 if self.is_frozen else 3

    def recipe_problems(self, recipe: Recipe) -> Iterator[tuple[str, str]]:
        """Keys of a recipe with which this objective cannot work, and why."""
        if recipe.validation_steps and not self.has_classifier:
            yield (
                "validation_steps",
                f"the objective `{self.name}` has no classifier to judge on the validation list; set 0",
            )
        if recipe.reestimate_batch_norm and self.is_frozen:
            yield "reestimate_batch_norm", "a frozen network keeps its batch-norm statistics; set 0"
        for name, why in self.unsuited.items():
            if name == "mixing" and recipe.mixing is not None:
                yield "mixing", f"the objective `{self.name}` {why}; leave it out"
            elif getattr(recipe.sampling, name, None) is not None:
                yield "sampling", f"{name}: the objective `{self.name}` {why}; leave it out"


class Classification(ObjectiveSettings):
    """Cross-entropy on the labels."""

    name: Literal["classification"] = "classification"
    module: ClassVar[str] = "pipeline_lib.training.objectives.classification"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    frozen: bool = False
    """Train the classifier alone, on features in eval mode: the linear protocol of self-supervised learning."""
    standardised: bool = False
    """With ``frozen``: subtract the batch's mean from each feature and divide by its deviation before the classifier
    (MAE's linear protocol, He et al. 2022, appendix A.1). The final weights hold one linear layer that does this."""

    @model_validator(mode="after")
    def _only_a_frozen_trunk_is_standardised(self) -> "Classification":
        if self.standardised and not self.frozen:
            raise ValueError("standardised: it needs a frozen trunk; set frozen to true too")
        return self

    @property
    def is_frozen(self) -> bool:
        """The trunk, in the linear protocol."""
        return self.frozen


class Distillation(ObjectiveSettings):
    """D3D, equations 1 and 2: cross-entropy + weight · distance(student, teacher)."""

    name: Literal["distillation"] = "distillation"
    module: ClassVar[str] = "pipeline_lib.training.objectives.distillation"
    needs_teacher: ClassVar[bool] = True
    endpoint: str = "logits"
    """Of the student."""
    teacher_endpoint: str | None = None
    """Of the teacher; null is the name of the student's."""
    adapter: Literal["auto", "none"] = "auto"
    """Where the features at the two endpoints have unequal shapes: ``auto`` trains a 1×1×1 convolution along, from the
    student's channels to the teacher's, and resamples its output to the teacher's T×H×W; the final weights leave it
    out. ``none`` refuses. Equal shapes, and logits, never have one."""
    weight: float = Field(default=1.0, ge=0)
    """λ of equation 1."""
    distance: Literal["mse", "mse_literal", "kl"] = "mse"
    """``mse`` is the mean over all elements; ``mse_literal`` reads equation 2 to the letter (sum / (N − 1))."""
    temperature: float = Field(default=1.0, gt=0)
    action_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy; 0 is the paper's variant without action loss."""
    pooled: bool = False
    """Average an endpoint over time and space before the distance, as MARS does (Crasto et al. 2019)."""

    @model_validator(mode="after")
    def _logits_teach_logits(self) -> "Distillation":
        if (self.endpoint == "logits") != (self.taught_endpoint == "logits"):
            raise ValueError("teacher_endpoint: logits are distilled from logits, features from features")
        return self

    @property
    def taught_endpoint(self) -> str:
        """The teacher's endpoint."""
        return self.teacher_endpoint or self.endpoint


class FlowRegression(ObjectiveSettings):
    """A flow decoder on an endpoint, trained beside the action loss (D3D, section 3.1)."""

    name: Literal["flow_regression"] = "flow_regression"
    module: ClassVar[str] = "pipeline_lib.training.objectives.flow_regression"
    needs_flow: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "erasing": "learns the flow of every pixel, and an erased one has none",
        "mixing": "learns the flow of one clip, and a mixture has two",
    }
    endpoint: str = "MaxPool_3a_3x3"
    """Where the decoder attaches; Table 6's flow rows use the paper's layer 3A."""
    decoder: Literal["simple", "spatial", "pwc", "none"] = "pwc"
    """D3D's section 4.1 names the Simple decoder, section 5.6 the PWC one. ``none``: the endpoint predicts flow itself
    (``predicted_flow`` of ``s3dg_predicted_flow``)."""
    unit: Literal["pixels", "bound"] = "pixels"
    """What the flow loss and the end-point error are measured in: pixels of the clip that the network sees, or the
    motion kind's bound (20 px for ``tvl1``). The paper prints no unit of the loss. Its end-point errors are in pixels
    (Table 1: 2.92 for no motion at all), and in pixels the loss starts at 3.8 beside a cross-entropy of 5.99, in units
    of the bound at 0.056, where a weight of 1 teaches next to nothing."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of the flow loss."""
    action_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy; 0 trains on the flow alone."""
    freeze: bool = False
    """Train only the decoder, on a frozen network: this measures how much motion its features hold (section 3.2)."""

    @model_validator(mode="after")
    def _has_something_to_train(self) -> "FlowRegression":
        if self.endpoint == "logits":
            raise ValueError("endpoint: logits have no spatial grid, which a flow decoder needs")
        if self.freeze and self.decoder == "none":
            raise ValueError("freeze: without a decoder (decoder: none) nothing would be trained")
        return self

    @property
    def reads_motion(self) -> bool:
        """The flow that is predicted."""
        return True

    @property
    def is_frozen(self) -> bool:
        """All but the decoder."""
        return self.freeze


class MotionDistillation(ObjectiveSettings):
    """MoDist's contrastive objectives between a visual and a motion pathway (its section 3.1); no label is used."""

    name: Literal["modist"] = "modist"
    module: ClassVar[str] = "pipeline_lib.training.objectives.modist"
    task: ClassVar[str | None] = None
    has_classifier: ClassVar[bool] = False
    modalities: ClassVar[tuple[str, ...]] = ("rgb",)
    unsuited: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rand_augment", "erasing", "mixing"), "changes its two views by `sampling.colours` alone, as its paper does"
    )
    losses: list[Literal["visual", "motion", "cross"]] = Field(default=["visual", "motion", "cross"], min_length=1)
    """Terms of equation 3: Lv, Lm, Lmv. ``[visual]`` is the paper's RGB-only baseline."""
    temperature: float = Field(default=0.1, gt=0)
    """τ of equation 1."""
    bank_size: int = Field(default=65536, ge=1)
    """Rows of each memory bank."""
    momentum: float = Field(default=0.999, ge=0, lt=1)
    """Share of the old weights that the momentum networks keep at each step."""
    dimension: int = Field(default=128, ge=1)
    """Length of an embedding."""
    num_hidden: int = Field(default=1, ge=0)
    """Hidden layers of the projection heads, whose number the paper does not print; the release has one
    (``CONTRASTIVE_HEAD_LAYERS: 2``), as MoCo v2; CVRL has 3."""
    hidden_width: int | None = Field(default=2048, ge=1)
    """Width of these layers in both pathways, the motion pathway's too, whose features have 256 channels:
    ``CONTRASTIVE_HIDDEN_DIM: 2048`` in the release (amazon-science/self-supervised-maclr, slowfast/config/defaults.py;
    ContrastiveCodeHead in slowfast/models/head_helper.py). null: as wide as the pathway's features."""
    projection_norm: bool = False
    """Batch normalisation in the projection heads, as in SimCLR's; the paper does not say whether it has any."""
    motion_network: Model = Model(name="modist_motion_r50")
    """The motion pathway; it is thrown away after the pre-training."""
    motion_frames: int = Field(default=16, ge=1)
    motion_stride: int = Field(default=4, ge=1)
    threshold: float = Field(default=0.02, ge=0)
    """γ (sections 3.1 and 4.1): motion clips are taken only from where the motion is stronger; 0 takes any clip."""
    threshold_of: Literal["frame", "clip_share"] = "frame"
    """What must exceed γ. ``frame``, as section 3.1 says: Σ P / K of every frame of the clip, in the unit of the motion
    (P of flow edges lies in [0, 10]). ``clip_share``: the mean over the whole clip as a share of the motion's bound,
    in [0, 1]; for flow edges that is ten times stricter."""
    jitter: bool = True
    """Draw each clip's time independently; false aligns vq with mk, and vk with mq."""

    @model_validator(mode="after")
    def _a_share_can_exceed_the_threshold(self) -> "MotionDistillation":
        if self.threshold_of == "clip_share" and self.threshold >= 1.0:
            raise ValueError(f"threshold: {self.threshold}; with threshold_of `clip_share` it is a share, below 1")
        return self

    @model_validator(mode="after")
    def _a_motion_pathway_teaches(self) -> "MotionDistillation":
        if self.reads_motion and "cross" not in self.losses:
            raise ValueError(
                "losses: only `cross` lets the motion pathway teach the visual one; add it, or set [visual]"
            )
        return self

    @property
    def reads_motion(self) -> bool:
        """Whether there is a motion pathway."""
        return self.losses != ["visual"]

    @property
    def needs_strength(self) -> bool:
        """Motion clips are taken only from where something moves."""
        return self.reads_motion and self.threshold > 0

    @property
    def networks(self) -> dict[str, Model]:
        """The motion pathway."""
        return {"motion_network": self.motion_network} if self.reads_motion else {}

    @property
    def clip_lengths(self) -> dict[str, int]:
        """Of the motion pathway."""
        return {"motion_network": self.motion_frames}

    @property
    def passes(self) -> int:
        """One more for the keys' pass; the motion pathway, of an eighth of the width, is not counted."""
        return super().passes + 1

    def recipe_problems(self, recipe: Recipe) -> Iterator[tuple[str, str]]:
        """Also batch statistics by which a query could tell its key."""
        yield from super().recipe_problems(recipe)
        if recipe.sampling.spacing == "segments":
            yield (
                "sampling",
                "spacing: `segments` gives both views the whole video; the objective `modist` contrasts different "
                "parts of it and needs `stride`",
            )
        if not recipe.synchronise_batch_norm:
            yield (
                "synchronise_batch_norm",
                "false would let batch statistics of a few clips tell a query which key is its own (MoCo, section "
                "3.3); the objective `modist` needs true",
            )


Objective = Annotated[Classification | Distillation | FlowRegression | MotionDistillation, Field(discriminator="name")]

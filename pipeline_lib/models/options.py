"""The options of each family of networks: types, ranges, defaults. This is plain data and imports no torch.

A specification holds every option with its value, so that a changed default trains again every network with it.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline_lib.configuration.networks import ImageNet, NetworkOptions

SHAPES_NO_ARTEFACT = True

LAST_LAYER = 10
"""The number of Inception's highest layer that may convolve over time (S3D-G, Figure 2)."""


def _odd(kernel: int) -> int:
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError("a kernel is odd and positive")
    return kernel


Kind = Literal["2d", "3d", "2plus1d"]
Padding = Literal["same", "symmetric"]
WidthRule = Literal["torchvision", "per_convolution"]
Gates = Literal["none", "temporal_convolutions", "branches", "blocks"]
GatePooling = Literal["space_time", "space", "time"]
Odd = Annotated[int, AfterValidator(_odd)]
Positive = Annotated[int, Field(ge=1)]


class InceptionOptions(NetworkOptions):
    """I3D, I2D, S3D, S3D-G and what lies between them (pipeline_lib/models/inception3d.py)."""

    convolution: Literal["full", "separable"] = "separable"
    """``full`` is I3D's k×k×k, ``separable`` is S3D's 1×k×k then k×1×1."""
    first_temporal_layer: int = Field(default=0, ge=0, le=LAST_LAYER + 1)
    """Lowest layer K that convolves over time (S3D-G, Figure 2); 11 makes an I2D."""
    last_temporal_layer: int = Field(default=LAST_LAYER, ge=-1, le=LAST_LAYER)
    """Highest such layer."""
    stem_kernel: Odd = 3
    """Temporal window of the stem: 7 in I3D and in the papers' S3D (their Figure 2's stem), 3 in the released S3D-G."""
    separable_stem: bool = False
    """Whether a separable network's stem is separable too: S3D-G's section 4.4 replaces "each 3D convolution", its
    released code (slim) keeps one k×7×7 convolution."""
    temporal_branches: Literal[2, 4] = 2
    """Whether two or all four branches of a separable block convolve over time (S3D-G, footnote 5)."""
    branch_2_kernel: Literal[1, 3] = 3
    """Side of branch 2's second convolution; 1 is how the paper counted I3D's 12.06 M."""
    gates: Gates = "none"
    """Where S3D-G's feature gates stand (section 4.6). ``temporal_convolutions``: directly after each k×1×1
    convolution, a separable stem's too, which the section found best. ``branches``: after ``Conv2d_2c_3x3`` and at the
    end of all four branches, as in the released code. ``blocks``: after ``Conv2d_2c_3x3`` and each Mixed block."""
    gate_pooling: GatePooling = "space_time"
    """What a gate averages over: ``space_time`` gives one weight per channel; ``space`` one per channel and frame, and
    ``time`` one per channel and position, both of which section 4.6 found worse."""
    gate_bias: bool = False
    """A bias in the gate, as in the paper's equation and not in the released code."""
    non_local: bool = False
    """Non-local blocks right before ``Mixed_5b`` and ``Mixed_5c`` (D3D's supplement, section 4)."""
    variant: Literal["slim", "torchvision"] = "slim"
    """``torchvision`` has temporal normalisation, a scale in each normalisation, and symmetric padding."""
    padding: Padding | None = None
    """Overrides the variant's: ``same`` is TensorFlow's, which slim's released weights need."""
    norm_scale: bool | None = None
    """Overrides whether normalisation has a scale; torchvision's 2D Inception v1 needs it."""
    temporal_stride: bool = True
    """False removes temporal strides and temporal pooling, so that an I2D does not see the order."""
    depth_multiplier: float = Field(default=1.0, gt=0)
    """Scales every width."""
    minimum_depth: Positive = 16
    """Least number of channels of a layer, as slim's ``min_depth``."""
    batch_norm_momentum: float = Field(default=0.001, gt=0, le=1)
    """Weight of a new batch in the running statistics; short runs need more."""
    batch_norm_eps: float = Field(default=1e-3, gt=0)
    """ε of the batch normalisations."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.convolution == "full" and self.separable_stem:
            raise ValueError("separable_stem: true needs convolution: separable")
        if self.convolution == "full" and self.gates == "temporal_convolutions":
            raise ValueError(
                "gates: temporal_convolutions needs convolution: separable, since a full convolution has no temporal "
                "one; write branches or blocks"
            )
        return self

    @property
    def imagenet(self) -> ImageNet | None:
        """Inception v1; torchvision's normalisations have a scale, which TF-slim's lack."""
        return ImageNet("torchvision/googlenet", {"norm_scale": True})

    @property
    def image_shapes(self) -> dict[str, Any] | None:
        """See ``NetworkOptions``."""
        return {
            "image network": "Inception v1",
            **{key: self.shapes[key] for key in ("norm_scale", "depth_multiplier")},
        }

    @property
    def shapes(self) -> dict[str, Any]:
        """See ``NetworkOptions``."""
        layers = range(self.first_temporal_layer, self.last_temporal_layer + 1)
        separable = self.convolution == "separable"
        # Every width of the papers is a multiple of 8.
        widths = [max(int(width * self.depth_multiplier), self.minimum_depth) for width in range(16, 385, 8)]
        return {
            "convolution": self.convolution,
            "first_temporal_layer": layers.start if layers else None,
            "last_temporal_layer": layers[-1] if layers else None,
            "stem_kernel": self.stem_kernel if 0 in layers else None,
            "separable_stem": self.separable_stem if 0 in layers else None,
            "temporal_branches": self.temporal_branches if separable else None,
            "branch_2_kernel": self.branch_2_kernel,
            "gates": self.gates,
            "gate_bias": None if self.gates == "none" else self.gate_bias,
            "non_local": self.non_local,
            "variant": self.variant,
            "norm_scale": self.variant == "torchvision" if self.norm_scale is None else self.norm_scale,
            "depth_multiplier": widths,
        }


class PredictedFlowOptions(NetworkOptions):
    """S3D-G's temporal stream on flow that first layers predict (pipeline_lib/models/predicted_flow.py)."""

    endpoint: str = "MaxPool_3a_3x3"
    """The flow predictor's last endpoint, "3A" in D3D."""
    decoder: Literal["simple", "spatial", "pwc"] = "pwc"
    """The predictor's decoder: the Simple one in D3D's section 4.1, the PWC one in its section 5.6."""
    stem_kernel: Odd = 3
    """Temporal window of both stems."""
    depth_multiplier: float = Field(default=1.0, gt=0)
    """Scales every width of both."""
    minimum_depth: Positive = 16
    """Least number of channels of a layer."""
    norm_scale: bool = False
    """Whether the normalisations of both have a scale, as a temporal stream from torchvision's 2D Inception v1 does."""
    batch_norm_momentum: float = Field(default=0.001, gt=0, le=1)
    """Weight of a new batch in the running statistics."""

    @property
    def stream(self) -> InceptionOptions:
        """Either S3D-G."""
        return InceptionOptions(gates="branches", **self.model_dump(exclude={"endpoint", "decoder"}))

    @property
    def shapes(self) -> dict[str, Any]:
        """See ``NetworkOptions``."""
        return {**self.stream.shapes, "endpoint": self.endpoint, "decoder": self.decoder}

    @property
    def trunk(self) -> tuple[NetworkOptions, str]:
        """The temporal stream."""
        return self.stream, "flow"


class _ResNetRelative(NetworkOptions):
    """A network with the blocks of an image ResNet, from which it can start."""

    depth: Literal[18, 34, 50]
    width: Positive = 64

    @property
    def imagenet(self) -> ImageNet | None:
        """The ResNet of the same depth."""
        return ImageNet(f"torchvision/resnet{self.depth}")

    @property
    def image_shapes(self) -> dict[str, Any] | None:
        """See ``NetworkOptions``."""
        return {"image network": "ResNet", "depth": self.depth, "width": self.width}


class ResNetOptions(_ResNetRelative):
    """R2D, f-R2D, MCx, rMCx, R3D, R(2+1)D (pipeline_lib/models/resnet3d.py)."""

    kinds: tuple[Kind, ...] = Field(default=("3d",) * 5, min_length=5, max_length=5)
    """Convolutions of conv1, conv2_x … conv5_x."""
    depth: Literal[18, 34] = 18
    fold_time: bool = False
    """R2D (R(2+1)D, section 3.1): the frames are channels of the first layer, after which there is no time axis."""
    num_frames: Positive = 8
    """Frames of a clip, for R2D only: its first layer is as wide as the clip is long."""
    width_rule: WidthRule = "per_convolution"
    """M of the (2+1)D pairs: per convolution (R(2+1)D, section 3.5; add_conv in VMZ's
    c2/lib/models/builder/video_model.py), or, as in torchvision, the first one's M for both of a block."""
    width: Positive = 64
    """Channels of the stem and conv2_x; the later groups double it. Less than 64 is for demonstrations."""
    batch_norm_momentum: float = Field(default=0.1, gt=0, le=1)
    """Weight of a new batch in the running statistics."""
    batch_norm_eps: float = Field(default=1e-3, gt=0)
    """ε of the batch normalisations: 1e-3 in VMZ (c2/lib/models/builder/video_model.py), 1e-5 in torchvision."""

    @property
    def clip_frames(self) -> int | None:
        """See ``NetworkOptions``."""
        return self.num_frames if self.fold_time else None

    @property
    def shapes(self) -> dict[str, Any]:
        """See ``NetworkOptions``."""
        return {
            "kinds": self.kinds,
            "depth": self.depth,
            "num_frames": self.clip_frames,
            "width_rule": self.width_rule if "2plus1d" in self.kinds else None,
            "width": self.width,
        }


class SlowOptions(_ResNetRelative):
    """SlowFast's Slow networks and MoDist's pathways (pipeline_lib/models/slow_resnet.py)."""

    depth: Literal[18, 34, 50] = 50
    """18 and 34 have basic blocks, 50 bottlenecks."""
    stem_kernel: Odd = 1
    """Temporal kernel of conv1: 5 in MoDist (section 3.3), 1 in PySlowFast."""
    stem_temporal_stride: Positive = 1
    """2 in MoDist's Table 1, 1 in PySlowFast."""
    temporal_kernels: tuple[Odd, Odd, Odd, Odd] = (1, 1, 3, 3)
    """Temporal kernels of res2 … res5; 3 in res4 and res5 of both."""
    width: Positive = 64
    """Channels of conv1 and inside res2: 64, or 8 for the motion pathway (1/8, MoDist, section 3.3)."""
    frames: Literal["clip", "stacked", "per_frame"] = "clip"
    """``clip`` convolves over a clip. ``stacked`` reads the frames as channels of one image (MoDist's text: "stacking
    16 motion frames"); ``per_frame`` runs the 2D network on each frame and averages (its Table 1's 1×7² kernels)."""
    num_frames: Positive = 16
    """Clip length, for ``stacked`` only."""
    num_hidden: int = Field(default=0, ge=0)
    """Hidden layers of a projection head; 0 is a linear classifier."""
    zero_init_final_norm: bool = True
    """Whether the scale of each residual block's last batch normalisation starts at 0, so that the block starts as its
    shortcut: ``ZERO_INIT_FINAL_BN: True`` in MoDist's release (amazon-science/self-supervised-maclr, configs/UCF101)
    and in PySlowFast's configs/Kinetics/SLOW_8x8_R50.yaml. Weights of a start replace it."""
    batch_norm_momentum: float = Field(default=0.1, gt=0, le=1)
    """Weight of a new batch in the running statistics."""
    batch_norm_eps: float = Field(default=1e-5, gt=0)
    """ε of the batch normalisations."""

    @model_validator(mode="after")
    def _two_dimensional(self) -> Self:
        if self.frames != "clip" and {*self.temporal_kernels, self.stem_kernel, self.stem_temporal_stride} != {1}:
            raise ValueError(f"frames: {self.frames} is a 2D network; its temporal kernels and stride must be 1")
        return self

    @property
    def clip_frames(self) -> int | None:
        """See ``NetworkOptions``."""
        return self.num_frames if self.frames == "stacked" else None

    @property
    def shapes(self) -> dict[str, Any]:
        """See ``NetworkOptions``."""
        return {
            "depth": self.depth,
            "stem_kernel": self.stem_kernel,
            "temporal_kernels": self.temporal_kernels,
            "width": self.width,
            "num_frames": self.clip_frames,
        }


class MViTOptions(NetworkOptions):
    """MViTv2 (pipeline_lib/models/mvit.py)."""

    depths: tuple[Positive, ...] = Field(default=(1, 2, 11, 2), min_length=1)
    """Blocks of each stage; two blocks or more in all."""
    width: Positive = 96
    """Channels of the first stage, a multiple of ``num_heads``; each later stage doubles them."""
    num_heads: Positive = 1
    """Attention heads of the first stage; each later stage doubles them."""
    num_frames: int = Field(default=16, ge=2, multiple_of=2)
    """Frames of a clip: the tables of relative positions are made for them."""
    side: Positive = 224
    """Height and width of a clip in pixels, a multiple of 4 · 2^(stages − 1)."""
    stochastic_depth: float = Field(default=0.2, ge=0, lt=1)
    """Probability of leaving out the last block in training; it grows linearly from 0."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if sum(self.depths) < 2:
            raise ValueError(f"depths: {list(self.depths)} has fewer than two blocks")
        if self.width % self.num_heads:
            raise ValueError(f"width: {self.width} is no multiple of num_heads, {self.num_heads}")
        # A patch has 4×4 pixels; every later stage halves the grid.
        coarsest = 4 * 2 ** (len(self.depths) - 1)
        if self.side % coarsest:
            raise ValueError(f"side: {self.side} is no multiple of {coarsest}")
        return self

    @property
    def clip_frames(self) -> int | None:
        """See ``NetworkOptions``."""
        return self.num_frames

    @property
    def clip_side(self) -> int | None:
        """See ``NetworkOptions``."""
        return self.side

    @property
    def shapes(self) -> dict[str, Any]:
        """See ``NetworkOptions``."""
        return {name: getattr(self, name) for name in ("depths", "width", "num_heads", "num_frames", "side")}


class SwinOptions(NetworkOptions):
    """Video Swin Transformers on patches of 2×4×4 (pipeline_lib/models/swin3d.py)."""

    depths: tuple[Positive, ...] = Field(default=(2, 2, 6, 2), min_length=1)
    """Blocks of each stage; two blocks or more in all."""
    width: Positive = 96
    """Channels of the first stage; each later stage doubles them."""
    num_heads: tuple[Positive, ...] = (3, 6, 12, 24)
    """Attention heads of each stage; they divide its channels."""
    window: tuple[Positive, Positive, Positive] = (8, 7, 7)
    """Patches over (T, H, W) that see each other."""
    stochastic_depth: float = Field(default=0.1, ge=0, lt=1)
    """Probability of leaving out the last block in training; it grows linearly from 0."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if sum(self.depths) < 2:
            raise ValueError(f"depths: {list(self.depths)} has fewer than two blocks")
        channels = [self.width * 2**stage for stage in range(len(self.depths))]
        if len(self.num_heads) != len(channels) or any(c % h for c, h in zip(channels, self.num_heads, strict=True)):
            raise ValueError(f"num_heads: {list(self.num_heads)} does not divide the stages' channels, {channels}")
        return self

    @property
    def shapes(self) -> dict[str, Any]:
        """See ``NetworkOptions``."""
        return {name: getattr(self, name) for name in ("depths", "width", "num_heads", "window")}

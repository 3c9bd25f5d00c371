"""Data sets, frame formats and motion kinds: what the first stages read."""

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from pipeline_lib.configuration.base import Section
from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.configuration.messages import parsed
from pipeline_lib.configuration.motions import METHODS, MethodKind

MOST_SHARDS = 256
"""Shards of a data set whose number nobody has set, at most."""


class Generated(Section):
    """Parameters of the generated data set (pipeline_lib/generation/videos.py)."""

    family: Literal["motions", "trajectories"] = "motions"
    """Which classes and textures: the demo's, or the second set, for fine-tuning."""
    num_train: int = Field(default=320, ge=1)
    num_validation: int = Field(default=160, ge=1)
    num_frames: int = Field(default=20, ge=4)
    short_side: int = Field(default=64, ge=32)
    misleading_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of training videos whose background hue follows the class; never in validation."""
    seed: int = 0


class Filter(Section):
    """Which of the listed videos belong to the data set; the filters apply in the order of the keys."""

    ids: str | None = None
    """File with one video id (or YouTube id) a line; only these are kept."""
    classes: str | None = None
    """File with one class name a line; only videos of these are kept."""
    largest_classes: int | None = Field(default=None, ge=1)
    """Only videos of so many classes with the most training videos are kept; of equal classes those whose names come
    first. Mini-Kinetics-200 has the 200 largest of Kinetics-400 (S3D-G, section 3.1)."""
    per_class: dict[Literal["train", "validation"], int] = {}
    """At most so many videos of each class and list, drawn with ``seed``."""
    total: dict[Literal["train", "validation"], int] = {}
    """At most so many videos of each list, drawn with ``seed``."""
    seed: int = 0


def _one_of(names: Iterable[str]) -> Callable[[str], str]:
    """A check that a value is one of some names."""

    def check(name: str) -> str:
        if name not in names:
            raise PydanticCustomError("enum", "unknown name", {"expected": ", ".join(names)})
        return name

    return check


class Dataset(Section):
    """One data set: where its annotations and videos lie and how they are filtered."""

    format: Annotated[str, AfterValidator(_one_of(FORMATS)), WithJsonSchema({"type": "string", "enum": list(FORMATS)})]
    """How it is annotated (pipeline_lib/configuration/formats.py lists what each format needs)."""
    annotations: dict[str, str | None] = {}
    """Annotation file (or folder of split files) per list name, e.g. ``train`` and ``validation``."""
    videos: list[str] = []
    """Folders that are searched for the videos, in this order."""
    replacements: list[str] = []
    """Folders with replacements of damaged videos; one is preferred, matched by its name or by the first 11
    characters of its name (the YouTube id) if those are unique."""
    filter: Filter = Filter()
    """A reduced data set; part of the manifest's digest."""
    validation_share: float = Field(default=0.2, ge=0.0, lt=1.0)
    """Share of each class that becomes the validation list if the annotations name none (``folder``, ``table``)."""
    generated: Generated | None = None
    frames_per_second: float | None = Field(default=None, gt=0)
    """The rate of a data set whose videos are folders of images; null: unknown (Something-Something v1: 12)."""
    num_splits: int = Field(default=1, ge=1)
    """Official train/validation divisions (UCF101 and HMDB51 have 3)."""
    horizontal_flip: Literal["allowed", "forbidden", "by_label"] = "allowed"
    """Whether a mirrored clip keeps its label; ``by_label``: if the label does not say left or right
    (Something-Something)."""
    num_shards: int | None = Field(default=None, ge=1)
    """Jobs per stage. Null follows the number of listed videos (pipeline_lib/planning/sharding.py) and stays, once the
    manifest is made."""
    group_pattern: str | None = None
    """Regular expression that is searched in each video's id. Videos for which its groups match the same text are of
    one source, and all of them go to the same list. Of ``folder``, and of ``table`` where the CSV names no group."""
    probe: Literal["decode", "headers", "none"] = "decode"
    """``decode`` decodes every frame of every video, ``headers`` opens it only, ``none`` trusts the list."""
    on_decode_error: Literal["reject", "keep"] = "reject"
    """What becomes of a video whose decoding reports an error."""
    probe_seconds: float = Field(default=120.0, gt=0)
    """Time limit for probing one file, after which it is rejected."""
    minimum_frames: int = Field(default=8, ge=1)
    minimum_short_side: int = Field(default=32, ge=1)
    maximum_reject_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """If a larger share of the listed videos is unusable, the manifest stage fails with the counts."""
    maximum_loss_share: float | None = Field(default=None, ge=0.0, le=1.0, exclude=True)
    """If the frames or the motion stage cannot use a larger share of a shard's videos, which the manifest accepted, it
    fails with the counts (one video alone never fails a shard). null is 0.05 where the manifest has decoded each video,
    else ``maximum_reject_share``. It shapes no artefact, so a change reruns nothing."""

    @field_validator("group_pattern")
    @classmethod
    def _has_a_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                num_groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"{value!r} is no regular expression ({error})") from None
            if not num_groups:
                raise ValueError(f"{value!r}: put what names the source into brackets, as in '_(g[0-9]+)_'")
        return value

    @property
    def shards(self) -> int:
        """Jobs per stage; the most that are chosen, where neither the configuration nor the plan has set a number."""
        return self.num_shards or MOST_SHARDS

    @property
    def loss_share(self) -> float:
        """``maximum_loss_share``, or what it is if it is not set."""
        if self.maximum_loss_share is not None:
            return self.maximum_loss_share
        return 0.05 if self.probe == "decode" else self.maximum_reject_share

    @property
    def is_generated(self) -> bool:
        """Whether its videos are made here, not read from files of the user's."""
        return FORMATS[self.format].importer is None


class FrameFormat(Section):
    """How RGB frames are stored."""

    short_side: int = Field(default=256, ge=16)
    """Pixels; smaller sources stay as they are."""
    frames_per_second: float | None = Field(default=None, gt=0)
    """Resampled to this rate; null keeps the native rate."""
    jpeg_quality: int = Field(default=75, ge=1, le=100)


def _not_zero(gap: int) -> int:
    if gap == 0:
        raise ValueError("a gap of 0 gives no motion; set at least 1 or at most −1")
    return gap


class Motion(Section):
    """A motion kind: method, gap and quantisation of what is stored beside the frames."""

    method: Annotated[str, AfterValidator(_one_of(METHODS)), WithJsonSchema({"type": "string", "enum": list(METHODS)})]
    gap: Annotated[int, AfterValidator(_not_zero)] = 1
    """Flow runs from frame t to t + gap; MoDist uses −5."""
    bound: float = Field(default=20.0, gt=0)
    """Values are clipped to ± bound (px) before the 8-bit quantisation."""
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    parameters: dict[str, Any] = Field(default={}, validate_default=True)
    """Parameters of the method (pipeline_lib/configuration/motions.py explains each)."""

    @field_validator("parameters")
    @classmethod
    def _complete(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        try:
            return METHODS[info.data["method"]].parameters.complete(value)
        except (KeyError, ValidationError):
            # Said elsewhere: of the method by its own key, of the parameters by theirs (check_references, create).
            return value

    @property
    def methods(self) -> list[MethodKind]:
        """Its method, and those of the flow that it is computed from.

        Raises:
            UserError: its parameters are wrong.
        """
        method = METHODS[self.method]
        values = parsed(method.parameters, self.parameters, f"motion method {self.method}: parameters")
        return [method, *(METHODS[source] for source in values.sources)]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what is stored of each frame."""
        return METHODS[self.method].channels


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]

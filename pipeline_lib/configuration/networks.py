"""What the configuration needs to know of any network's options (pipeline_lib/models/options.py has the families)."""

from typing import Any, NamedTuple

from pydantic import Field

from pipeline_lib.configuration.base import Section


class ImageNet(NamedTuple):
    """Public weights of an image network that a video network can start from.

    Attributes:
        source: name of the weights.
        options: options that a network needs to hold them.
    """

    source: str
    options: dict[str, Any] = {}


class NetworkOptions(Section):
    """Options of one family of networks; each family adds its own."""

    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Probability of dropping a feature before the classifier; null takes the recipe's."""

    @property
    def clip_frames(self) -> int | None:
        """The only clip length that the network takes, or None if it takes any."""
        return None

    @property
    def clip_side(self) -> int | None:
        """The only height and width, in pixels, that the network takes, or None if it takes any."""
        return None

    @property
    def imagenet(self) -> "ImageNet | None":
        """The public weights of its 2D relative, trained on ImageNet, or None if there are none."""
        return None

    @property
    def shapes(self) -> dict[str, Any]:
        """The options that decide names and shapes of the tensors, apart from the classifier and the input's channels.

        Options without such an effect are left out, or are None if other options disable them.
        """
        return {}

    @property
    def trunk(self) -> "tuple[NetworkOptions, str] | None":
        """A network that is part of this one, and what it sees: its weights can be a start too."""
        return None


class NetworkKind(NamedTuple):
    """A network of the catalogue: the module that builds it, the model of its options, and those of its name."""

    module: str
    options_model: type[NetworkOptions]
    options: dict[str, Any]

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
    def image_shapes(self) -> dict[str, Any] | None:
        """What a file of an image network must agree with for the network to be inflated from it, as ``shapes``.

        ``image network`` names the family. None: no image network is its relative.
        """
        return None

    @property
    def trunk(self) -> "tuple[NetworkOptions, str] | None":
        """A network that is part of this one, and what it sees: its weights can be a start too."""
        return None


class Start(NamedTuple):
    """A network whose weights another one starts from.

    Attributes:
        name: in the catalogue.
        options: of its family.
        modality: what it sees, ``rgb`` or ``flow``.
    """

    name: str
    options: NetworkOptions
    modality: str


def _differences(
    there: NetworkOptions, here: NetworkOptions, shapes_there: dict[str, Any], shapes_here: dict[str, Any]
) -> list[str]:
    def value(options: NetworkOptions, name: str, shape: Any) -> Any:
        given = getattr(options, name, None)
        return shape if given is None else given

    return [
        f"{name} is {value(there, name, shapes_there.get(name))} there and {value(here, name, shape)} here"
        for name, shape in shapes_here.items()
        if shapes_there.get(name) != shape
    ]


def misfits(own: Start, source: Start) -> list[str]:
    """Why a network cannot start from another one's weights; empty if it can."""
    places = [(own.options, own.modality), *([] if own.options.trunk is None else [own.options.trunk])]
    found = [f"{source.name} is of another family than {own.name}"]
    for options, modality in places:
        if type(options) is type(source.options):
            found = _differences(source.options, options, source.options.shapes, options.shapes)
            if source.modality != modality:
                found.append(f"it sees {source.modality}, not {modality}")
    return found


def image_misfits(own: Start, source: Start) -> list[str]:
    """Why a network cannot be inflated from an image network; empty if it can."""
    here, there = own.options.image_shapes, source.options.image_shapes
    if here is None or there is None or here["image network"] != there["image network"]:
        return [f"{own.name} is no relative of an image network of the kind {(there or {}).get('image network')}"]
    return _differences(source.options, own.options, there, here)


class NetworkKind(NamedTuple):
    """A network of the catalogue: the module that builds it, the model of its options, and those of its name."""

    module: str
    options_model: type[NetworkOptions]
    options: dict[str, Any]

"""The public weights that can be imported: what they are, where they lie, how their input was normalised.

Plain data; neither torch nor torchvision is imported, since the plan of a run asks for addresses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline_lib.errors import UserError
from pipeline_lib.models.importing import names

# Mean and standard deviation on [0, 1]: torchvision's video presets (VideoClassification), PySlowFast's
# DATA.MEAN/STD, ImageNet's.
TORCHVISION_VIDEO = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
PYSLOWFAST = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# [-1, 1] on [0, 1]; torchvision's googlenet maps its ImageNet-normalised input back to this (transform_input).
SYMMETRIC = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Source:
    """One kind of public checkpoint.

    Attributes:
        model: the network that it fills by default; of an image network its 2D form here.
        name_map: from its tensor names to those of the network's family.
        normalisation: mean and standard deviation of its input on [0, 1].
        about: where the file comes from, as text.
        url: where the file lies, or None if only a web page leads to it.
        torchvision: name of torchvision's weights, which know their classes; None for other sources.
        two_dimensional: whether it is an image network. Its file serves every network of the family, which inflates it
            where its training starts.
        options: options of the network that this source needs.
        clip: how its publisher took clips when it was judged, as keys of a recipe's ``sampling``; None if nobody says
            it, so that nothing can be predicted with it.
    """

    model: str
    name_map: names.NameMap
    normalisation: Normalisation
    about: str
    url: str | None = None
    torchvision: str | None = None
    two_dimensional: bool = False
    options: Mapping[str, Any] | None = None
    clip: Mapping[str, Any] | None = None


# torchvision's presets (VideoClassification) resize before the crop; the documents of its weights say the rate and the
# length of the clips that their accuracies were estimated with.
_RESNET_CLIP = {"num_frames": 16, "frames_per_second": 15.0, "resize": (128, 171), "crop": 112}
_S3D_CLIP = {"num_frames": 128, "frames_per_second": 15.0, "resize": (256, 256), "crop": 224}
_MVIT_CLIP = {"num_frames": 16, "frames_per_second": 7.5, "short_side": (256, 256), "crop": 224}
_SWIN_CLIP = {"num_frames": 32, "frames_per_second": 15.0, "short_side": (256, 256), "crop": 224}


def _torchvision(model: str, name_map: names.NameMap, normalisation: Normalisation, file: str, **more: Any) -> Source:
    """Weights of torchvision; ``file`` is the file of its default weights, NAME-DIGITS.pth."""
    about = f"{more.pop('about', 'Kinetics-400')}, torchvision"
    url = f"https://download.pytorch.org/models/{file}"
    return Source(model, name_map, normalisation, about, url, file.partition("-")[0], **more)


SOURCES: dict[str, Source] = {
    f"torchvision/{file.partition('-')[0]}": _torchvision(
        f"torchvision/{file.partition('-')[0]}", name_map, norm, file, clip=clip
    )
    for name_map, norm, file, clip in (
        (names.torchvision_s3d, TORCHVISION_VIDEO, "s3d-d76dad2f.pth", _S3D_CLIP),
        (names.torchvision_video_resnet, TORCHVISION_VIDEO, "r3d_18-b3b3357e.pth", _RESNET_CLIP),
        (names.torchvision_video_resnet, TORCHVISION_VIDEO, "mc3_18-a90a0ba3.pth", _RESNET_CLIP),
        (names.torchvision_video_resnet, TORCHVISION_VIDEO, "r2plus1d_18-91a641e6.pth", _RESNET_CLIP),
        (names.torchvision_transformer, PYSLOWFAST, "mvit_v2_s-ae3be167.pth", _MVIT_CLIP),
        (names.torchvision_transformer, IMAGENET, "swin3d_t-7615ae03.pth", _SWIN_CLIP),
    )
}
SOURCES |= {
    "kylemin/s3d": Source(
        "torchvision/s3d", names.kylemin_s3d, SYMMETRIC, "S3D_kinetics400.pt of github.com/kylemin/S3D"
    ),
    "slim/s3dg": Source(
        "s3dg_slim",
        names.slim,
        SYMMETRIC,
        "S3D-G or D3D in TF-slim's names, exported to npz (github.com/princeton-vl/d3dhelper)",
    ),
    "slim/i3d": Source("i3d", names.slim, SYMMETRIC, "I3D in TF-slim's names, exported to npz"),
    "pyslowfast/slow_r50": Source(
        "slow_r50", names.pyslowfast, PYSLOWFAST, "SlowOnly-R50 of PySlowFast's model zoo (.pkl or .pyth)"
    ),
    "maclr/slow_r50": Source(
        "modist_r50",
        names.pyslowfast,
        PYSLOWFAST,
        "maclr.pyth of github.com/amazon-science/self-supervised-maclr",
        "https://aws-cv-sci-motion-public.s3.us-west-2.amazonaws.com/MaCLR/model_zoos/maclr.pyth",
    ),
    # Image networks.
    "slim/inception_v1": Source(
        "i2d",
        names.slim,
        SYMMETRIC,
        "Inception v1, ImageNet, TF-slim (inception_v1_2016_08_28), exported to npz",
        two_dimensional=True,
    ),
    "torchvision/googlenet": _torchvision(
        "i2d",
        names.torchvision_googlenet,
        SYMMETRIC,
        "googlenet-1378be20.pth",
        about="Inception v1, ImageNet",
        two_dimensional=True,
        options={"norm_scale": True},
    ),
}
SOURCES |= {
    f"torchvision/resnet{depth}": _torchvision(
        f"resnet_{depth}",
        names.torchvision_resnet,
        IMAGENET,
        f"resnet{depth}-{digits}.pth",
        about=f"ResNet-{depth}, ImageNet",
        two_dimensional=True,
    )
    for depth, digits in ((18, "f37072fd"), (34, "b627a593"), (50, "0676ba61"))
}


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        UserError: there is none; the message lists all.
    """
    if name not in SOURCES:
        raise UserError(f"no source of weights is called {name!r}; known are {', '.join(SOURCES)}")
    return SOURCES[name]

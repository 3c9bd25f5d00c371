"""Videos that come as folders of numbered images, with their flow if it lies there too.

Layouts: ``img_00001.jpg`` with ``flow_x_00001.jpg`` and ``flow_y_00001.jpg`` (denseflow, MMAction2's rawframes);
``x_00001.jpg`` and ``y_00001.jpg``, or folders ``u`` and ``v`` (older TSN trees); ``00001.jpg`` (Something-Something).
It imports no decoder, because the stages behind the manifest read such folders by it too.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_lib.manifests.content import image_files

_NAME = re.compile(r"(?:(img|image|frame|flow_x|flow_y|x|y)_?)?(\d+)", re.IGNORECASE)
_X, _Y, _FRAMES = "flow x", "flow y", "frames"
_KINDS = {"flow_x": _X, "x": _X, "flow_y": _Y, "y": _Y}
_FLOW_FOLDERS = {"u": _X, "v": _Y}


@dataclass(frozen=True)
class FrameFolder:
    """The images of one video, each list in the order of its numbers.

    ``flow_x`` and ``flow_y`` are equally long, and empty where there is no flow. ``problem`` is empty, or says why the
    folder cannot be used, as ``reason: detail``; then the lists mean nothing.
    """

    frames: list[Path] = field(default_factory=list)
    flow_x: list[Path] = field(default_factory=list)
    flow_y: list[Path] = field(default_factory=list)
    problem: str = ""

    @property
    def images(self) -> list[Path]:
        """All of them."""
        return [*self.frames, *self.flow_x, *self.flow_y]


def read_frame_folder(folder: Path) -> FrameFolder:
    """Find the frames and the flow of a video.

    Args:
        folder: of the video.

    Returns:
        What lies there, or the problem: ``empty``, ``unnumbered images``, ``missing frames`` (a number in between),
        ``missing flow`` (x without y, or a number in between), ``unmatched flow`` (its numbers begin elsewhere).
    """
    found: dict[str, dict[int, Path]] = {_FRAMES: {}, _X: {}, _Y: {}}
    for image in image_files(folder):
        match = _NAME.fullmatch(image.stem)
        if match is None:
            return FrameFolder(problem=f"unnumbered images: {image.name} is named as no frame of a video")
        kind = _KINDS.get((match[1] or "").lower(), _FRAMES)
        if image.parent != folder:
            kind = _FLOW_FOLDERS[image.parent.name]
        number = int(match[2])
        if number in found[kind]:
            same = found[kind][number].name
            return FrameFolder(problem=f"unnumbered images: {same} and {image.name} have the same number")
        found[kind][number] = image
    frames, flow_x, flow_y = found[_FRAMES], found[_X], found[_Y]
    if not frames:
        return FrameFolder(problem="empty: the folder holds no images" + (" but flow" if flow_x or flow_y else ""))
    for along, (own, other) in {"y": (flow_x, flow_y), "x": (flow_y, flow_x)}.items():
        alone = sorted(own.keys() - other.keys())
        if alone:
            return FrameFolder(problem=f"missing flow: {own[alone[0]].name} has no flow along {along}")
    for images, what in ((frames, "frames"), (flow_x, "flow")):
        gap = _gap(images)
        if gap is not None:
            return FrameFolder(problem=f"missing {what}: there is no number {gap}")
    if flow_x and min(flow_x) != min(frames):
        first, first_flow = frames[min(frames)].name, flow_x[min(flow_x)].name
        return FrameFolder(problem=f"unmatched flow: it begins with {first_flow}, the frames with {first}")
    in_order = [[images[number] for number in sorted(images)] for images in (frames, flow_x, flow_y)]
    return FrameFolder(in_order[0], in_order[1], in_order[2])


def _gap(images: dict[int, Path]) -> int | None:
    """The first number that is missing between the first and the last, if any."""
    numbers = sorted(images)
    return next((one + 1 for one, after in zip(numbers, numbers[1:], strict=False) if after != one + 1), None)

"""Real frames for the flow tests."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from flow_material import read_clip


@pytest.fixture(scope="session")
def grey_clip(media: Path) -> Callable[[str, int, int, int], np.ndarray]:
    """Grey uint8 frames (count, H, W) of ``clips/{name}``."""

    def read(name: str, short_side: int, start: int, count: int) -> np.ndarray:
        clip = read_clip(media / "clips" / name, short_side, start, count)
        return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in clip])

    return read

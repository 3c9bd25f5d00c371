"""The image of the Dockerfile, built step by step in a fresh root, runs the demo as an ordinary user.

pytest --soak tests/integration/test_image.py     # as root on Debian, with network: 8 minutes, 10 GB
"""

import os
import shutil
from pathlib import Path

import pytest
from image_in_root import Root, build, run

# The demo with few videos, and a hundredth of its training.
SMALL = """
trial: 0.01
datasets:
  generated: {generated: {num_train: 16, num_validation: 8}}
  generated_transfer: {generated: {num_train: 16, num_validation: 8}}
"""


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mount need root")
@pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="debootstrap needs Debian")
def test_the_image_runs_the_demo_as_an_ordinary_user(repository: Path, tmp_path: Path) -> None:
    image = Root(tmp_path / "root", repository)
    try:
        build(image)
        output = tmp_path / "output"
        output.mkdir()
        os.chown(output, int(image.user), int(image.user))
        (image.folder / "opt/pipeline/my.yaml").write_text(SMALL, encoding="utf-8")
        image.volumes = [f"{output}:/opt/pipeline/output"]
        run(image, ["demo", "--configfile", "my.yaml"])
        pages = list(output.rglob("demo.html"))
        assert pages and all(path.stat().st_uid == int(image.user) for path in pages)
    finally:
        shutil.rmtree(image.folder, ignore_errors=True)

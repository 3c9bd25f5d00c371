"""What the tests of a report ask for: four small experiments, as a specification and as text."""

import html
import re
import shutil

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import (
    ReportedExperiment,
    ReportSpecification,
)

PROTOCOL = Protocol(num_clips=2)


def reported(name: str, stage: str, modality: str = "rgb", **more: object) -> ReportedExperiment:
    values = {
        "name": name, "description": f"<{name}> & co", "stage": stage, "dataset": "tiny", "modality": modality,
        "splits": [1], "seeds": [0], "protocols": ["two_clips"],
    }  # fmt: skip
    if stage != "ensemble":
        values |= {"frame_format": "small", "model": "s3dg_slim"}
    return ReportedExperiment.model_validate(values | more)


def printed(
    source: str, protocol: str = "two_clips", differs: str | None = None, **figures: float
) -> dict[str, object]:
    return {"source": source, "protocol": protocol, "figures": figures, "differs": differs}


PAPER = [printed("D3D, Table 2", video_top1=75.9)]


SPECIFICATION = ReportSpecification(
    name="demo",
    title="Tiny demo",
    experiments=[
        reported("teacher", "train_teacher", "flow", motion="tvl1"),
        reported("baseline", "train_baseline", seeds=[0, 1]),
        reported("d3d", "distill", motion="tvl1", teacher="teacher", printed=PAPER, differs=["random first weights"]),
        reported("rgb_flow", "ensemble", "rgb+flow", members=["baseline", "teacher"]),
    ],
    notes=["A tiny run."],
)  # fmt: skip


def text_of(content: str) -> str:
    without = re.sub(r"<(style|title|script)\b.*?</\1>", " ", content, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", without)))


def copy_folder(source: Layout, target: Layout, folder: str) -> None:
    shutil.copytree(source.root / folder, target.root / folder)

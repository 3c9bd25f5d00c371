"""The most confident mistakes of a network, with pictures of the videos from the stored frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import simplejpeg

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.errors import UserError
from pipeline_lib.media.shards import Shard
from pipeline_lib.reporting.collect import Report
from pipeline_lib.reporting.compare import Comparison
from pipeline_lib.reporting.flow_pictures import MOMENTS, Picture, picture
from pipeline_lib.tasks.results import Mistake, Mistakes, Result, load_presentation

NUM_MISTAKES = 12
"""So many are shown of an experiment."""
PICTURE_HEIGHT = 84


@dataclass(frozen=True)
class ShownMistake:
    """One mistake on the page.

    Attributes:
        mistake: the video, its class and what it was taken for.
        recognised_by: the other experiments of the report that recognise the video, under the same protocol.
        moments: number and picture of frames, in the order of the video; none if its frames are not there.
        shard: that the pictures are from, or None.
    """

    mistake: Mistake
    recognised_by: list[str]
    moments: list[tuple[int, Picture]]
    shard: Path | None


@dataclass(frozen=True)
class MistakeGallery:
    """The mistakes of one experiment on one data set.

    Attributes:
        result: the experiment under its protocol.
        run: which of its runs, ``split-seed``.
        found: how many mistakes there are in all.
        shown: the most confident ones.
    """

    result: Result
    run: str
    found: Mistakes
    shown: list[ShownMistake]

    @property
    def num_pictured(self) -> int:
        """How many of them have pictures."""
        return sum(bool(one.moments) for one in self.shown)


def headlines(report: Report, comparisons: Sequence[Comparison]) -> list[Result]:
    """The result of each data set whose mistakes are shown: what the report compares first, or else the best one."""
    chosen: dict[str, Result] = {}
    for entry in comparisons:
        if entry.difference is not None:
            chosen.setdefault(entry.first.experiment.dataset, entry.first)
    for dataset in dict.fromkeys(result.experiment.dataset for result in report.results):
        own = [result for result in report.results if result.experiment.dataset == dataset]
        column = load_presentation(own[0].task).columns[0].name
        alike = [result for result in own if (result.task, result.protocol) == (own[0].task, own[0].protocol)]
        chosen.setdefault(dataset, max(alike, key=lambda result: result.mean(column)))
    return list(chosen.values())


def _frame_format(report: Report, result: Result) -> str | None:
    """The frames that an experiment sees; an ensemble's are those of another experiment on the data set."""
    own = result.experiment
    formats = [one.frame_format for one in report.specification.experiments if one.dataset == own.dataset]
    return own.frame_format or next((one for one in formats if one is not None), None)


def _pictures(layout: Layout, dataset: str, frame_format: str | None, ids: Sequence[str]) -> dict[str, Path]:
    """The frames shards of some videos, as far as they are there."""
    if frame_format is None or not ids:
        return {}
    table = pd.read_parquet(layout.manifest(dataset), columns=["id", "shard"])
    table = table[table["id"].isin(ids)]
    paths = {
        str(id): layout.frames(dataset, frame_format, str(shard))
        for id, shard in zip(table["id"], table["shard"], strict=True)
    }
    return {id: path for id, path in paths.items() if path.is_file()}


def _moments(path: Path, id: str) -> list[tuple[int, Picture]]:
    """Some frames of a video; none if the shard cannot be read or does not hold it."""
    try:
        shard = Shard(path)
        try:
            row = shard.index[id]
            numbers = sorted({int(moment * (shard.videos[row].num_frames - 1)) for moment in MOMENTS})
            jpegs = [shard.read(row, number, number + 1)[0] for number in numbers]
        finally:
            shard.close()
        images = [simplejpeg.decode_jpeg(jpeg, colorspace="RGB") for jpeg in jpegs]
    except (UserError, KeyError, ValueError):
        return []
    return [(number, picture(image, PICTURE_HEIGHT, photo=True)) for number, image in zip(numbers, images, strict=True)]


def mistake_galleries(report: Report, comparisons: Sequence[Comparison]) -> list[MistakeGallery]:
    """The most confident mistakes of the first run of each data set's headline; none of a network without mistakes."""
    galleries = []
    for result in headlines(report, comparisons):
        presentation, run, dataset = load_presentation(result.task), result.runs[0], result.experiment.dataset
        found = presentation.mistakes(run.predictions, NUM_MISTAKES)
        ids = [mistake.id for mistake in found.most_confident]
        if not ids:
            continue
        recognised = {}
        for other in report.results:
            alike = [
                one.predictions
                for one in other.runs
                if (one.split, one.metrics["manifest"]) == (run.split, run.metrics["manifest"])
            ]
            if other.name != result.name and (other.task, other.protocol) == (result.task, result.protocol) and alike:
                recognised[other.name] = presentation.recognised(alike[0], ids)
        shards = _pictures(report.layout, dataset, _frame_format(report, result), ids)
        shown = []
        for mistake in found.most_confident:
            shard = shards.get(mistake.id)
            moments = [] if shard is None else _moments(shard, mistake.id)
            others = [name for name, known in recognised.items() if mistake.id in known]
            shown.append(ShownMistake(mistake, others, moments, shard if moments else None))
        galleries.append(MistakeGallery(result, f"{run.split}-{run.seed}", found, shown))
    return galleries

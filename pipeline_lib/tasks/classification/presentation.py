"""How results of classification are shown: accuracies, classes, confusion."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from pipeline_lib.errors import UserError
from pipeline_lib.tasks.classification.comparison import (
    ClassDifference,
    paired_difference,
    per_class_differences,
    student_teacher_distance,
)
from pipeline_lib.tasks.classification.metrics import Evaluation
from pipeline_lib.tasks.classification.mistakes import confident_mistakes, recognised
from pipeline_lib.tasks.classification.scores import ScoreFile
from pipeline_lib.tasks.drawing import COLOURS, STYLE, svg
from pipeline_lib.tasks.results import Column, Comparison, Difference, Mistakes, Result, Section, signed
from pipeline_lib.text_table import text_table

DATA_FILES = ("classes.html.j2", "confusion.html.j2")
"""Parts of the page, beside this module; the fingerprint covers them."""

MAXIMUM_CONFUSION_CLASSES = 24
NUM_CONFUSED_PAIRS = 15
MAXIMUM_CLASS_ROWS = 40


class ClassificationPresentation:
    """See ``Presentation``."""

    columns = (
        Column("video_top1", "Video@1", ("video_top1_interval_low", "video_top1_interval_high")),
        Column("video_top5", "Video@5", best_of=5),
        Column("clip_top1", "Clip@1"),
        Column("mean_class_accuracy", "Mean class"),
        Column("calibration_error", "Calib. error", printed=False),
    )

    def legend(self, columns: Sequence[Column]) -> str:
        """What the columns mean."""
        of_videos = " and ".join(column.label for column in columns if column.name in ("video_top1", "video_top5"))
        verb = "average" if " and " in of_videos else "averages"
        return (
            f"Per cent. {of_videos} {verb} the softmax over a video's clips; below Video@1 stands the 95 % interval of "
            "a share of that many videos (Wilson), or the standard deviation over several runs. The calibration error "
            "is the gap between confidence and accuracy (15 bins). ★ marks the highest Video@1."
        )

    def describe(self, metrics: Mapping[str, Any]) -> str:
        """The figures of one evaluation in a line, for a log."""
        printed = [column for column in self.columns if column.printed and column.says_something(metrics)]
        shown = [column for column in printed if column.name in metrics["metrics"]]
        if not shown:
            return f"{metrics['num_videos']} videos, {metrics['num_clips']} clips, without labels to judge them by"
        figures = ", ".join(f"{column.label} {100 * metrics['metrics'][column.name]:.2f} %" for column in shown)
        return f"{figures} ({metrics['num_videos']} videos, {metrics['num_clips']} clips)"

    def difference(
        self, first: Sequence[Path], second: Sequence[Path], names: tuple[str, str], paired: bool
    ) -> Difference:
        """The difference of Video@1."""
        ours, theirs = [ScoreFile(path) for path in first], [ScoreFile(path) for path in second]
        return paired_difference(ours, theirs, names, paired)

    def distance(self, student: Path, teacher: Path) -> dict[str, float]:
        """The distance of the logits on the same clips."""
        distance = student_teacher_distance(ScoreFile(student), ScoreFile(teacher))
        return {
            "Mean squared error": round(distance.mse, 3),
            "KL(teacher ‖ network)": round(distance.kl, 3),
            "Same top-1, %": round(100 * distance.agreement, 1),
            "Clips": distance.num_clips,
        }

    def comparison(self, first: Path, second: Path) -> Comparison:
        """Video@1, the classes that differ most, and how far the logits are apart."""
        ours, theirs = ScoreFile(first), ScoreFile(second)
        difference = paired_difference([ours], [theirs], (str(first), str(second)))
        classes = sorted(per_class_differences([ours], [theirs]), key=lambda row: (-abs(row.difference), row.name))
        mean, low, high = (signed(100 * value) for value in (difference.mean, difference.low, difference.high))
        lines = [
            f"Video@1: {mean} points, 95 % interval {low} … {high} (paired bootstrap, {difference.num_videos} videos)"
        ]
        try:
            distance = student_teacher_distance(ours, theirs)
            lines.append(
                f"logits: mean squared difference {distance.mse:.4f}, KL(second ‖ first) {distance.kl:.4f} nats, "
                f"same top-1 in {100 * distance.agreement:.1f} % of {distance.num_clips} clips"
            )
        except UserError as error:
            distance = None
            lines.append(f"the logits cannot be compared: {error}")
        data = {
            "video_top1_difference": difference.as_data(),
            "per_class": [asdict(row) | {"difference": row.difference} for row in classes],
            "distance": distance.as_data() if distance else None,
        }
        return Comparison(data, lambda count: "\n".join([*lines, *_class_lines(classes[:count])]))

    def mistakes(self, predictions: Path, count: int) -> Mistakes:
        """See ``confident_mistakes``."""
        return confident_mistakes(ScoreFile(predictions), count)

    def recognised(self, predictions: Path, ids: Sequence[str]) -> set[str]:
        """See ``mistakes.recognised``."""
        return recognised(ScoreFile(predictions), ids)

    def sections(self, results: Sequence[Result], pairs: Sequence[tuple[Result, Result]]) -> list[Section]:
        """Accuracy per class, and confusion."""
        environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(_data_file),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        drawn = []
        for first, second in pairs:
            split = min({run.split for run in first.runs} & {run.split for run in second.runs})
            runs = [[run for run in result.runs if run.split == split] for result in (first, second)]
            files = [[ScoreFile(run.predictions) for run in own] for own in runs]
            paired = [run.seed for run in runs[0]] == [run.seed for run in runs[1]]
            try:
                rows = per_class_differences(files[0], files[1], paired)
            except UserError:
                # The table of differences says why.
                continue
            if not any(row.difference for row in rows):
                # Two networks that recognise the same videos make a plot of dots without a line.
                continue
            label = f"{first.name} − {second.name}"
            means = "" if max(map(len, runs)) == 1 else ", means over training runs"
            caption = f"{label}, accuracy per class (number of its videos in brackets){means}."
            drawn.append({"svg": _class_differences(first.name, second.name, rows), "caption": caption})
        classes = environment.get_template("classes.html.j2").render(
            class_tables=_class_tables(results), class_figures=drawn
        )
        confusion = environment.get_template("confusion.html.j2").render(
            confusions=[_confusion(result) for result in results]
        )
        return [Section("classes", "Classes", Markup(classes)), Section("confusion", "Confusion", Markup(confusion))]


def _class_lines(rows: Sequence[ClassDifference]) -> list[str]:
    cells = [
        [
            row.name,
            str(row.num_videos),
            f"{100 * row.first:.1f}",
            f"{100 * row.second:.1f}",
            signed(100 * row.difference),
            f"{signed(100 * row.low)} … {signed(100 * row.high)}",
        ]
        for row in rows
    ]
    header = ["class", "videos", "first", "second", "difference", "95 % interval"]
    return [text_table(header, cells)] if cells else []


def _data_file(name: str) -> str | None:
    """The text of one of the data files; None for another name."""
    return (resources.files(__package__) / name).read_text("utf-8") if name in DATA_FILES else None


def _mean_classes(result: Result) -> dict[str, dict[str, Any]]:
    """Per class the number of its videos in the first run, and the accuracy over the videos of all runs."""
    tables = [{entry["class"]: entry for entry in run.metrics["per_class"]} for run in result.runs]
    found = {}
    for name, entry in tables[0].items():
        own = [table[name] for table in tables if name in table]
        num_videos = sum(one["num_videos"] for one in own)
        accuracy = sum(one["num_correct"] for one in own) / num_videos if num_videos else None
        found[name] = entry | {"accuracy": accuracy}
    return found


def _class_tables(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Accuracy per class and experiment, one table a data set and protocol; of many classes the most different."""
    tables = []
    places = dict.fromkeys((result.experiment.dataset, result.protocol) for result in results)
    for dataset, protocol in places:
        chosen = [r for r in results if (r.experiment.dataset, r.protocol) == (dataset, protocol)]
        by_class = [_mean_classes(result) for result in chosen]
        rows = []
        for name, entry in by_class[0].items():
            shares = [other.get(name, {}).get("accuracy") for other in by_class]
            if any(share is not None for share in shares):
                rows.append({"name": name, "num_videos": entry["num_videos"], "shares": shares})
        omitted = max(0, len(rows) - MAXIMUM_CLASS_ROWS)
        if omitted:

            def spread(row: dict[str, Any]) -> float:
                known = [share for share in row["shares"] if share is not None]
                return float(max(known) - min(known))

            kept = sorted(rows, key=lambda row: (-spread(row), row["name"]))[:MAXIMUM_CLASS_ROWS]
            rows = sorted(kept, key=lambda row: str(row["name"]))
        names = [result.name for result in chosen]
        tables.append({"dataset": dataset, "protocol": protocol, "names": names, "rows": rows, "omitted": omitted})
    return tables


def _confusion(result: Result) -> dict[str, Any]:
    """A confusion matrix, or of many classes the pairs that are confused most."""
    evaluation = Evaluation(ScoreFile(result.runs[0].predictions))
    matrix, classes = evaluation.confusion, evaluation.scores.classes
    several = f" ({result.runs[0].split}-{result.runs[0].seed})" if len(result.runs) > 1 else ""
    content: dict[str, Any] = {"name": result.name + several, "classes": classes, "rows": [], "pairs": []}
    totals = matrix.sum(axis=1)
    if len(classes) <= MAXIMUM_CONFUSION_CLASSES:
        for label, name in enumerate(classes):
            counts = matrix[label].tolist()
            cells = [{"count": count, "share": count / max(int(totals[label]), 1)} for count in counts]
            content["rows"].append({"name": name, "cells": cells})
        return content
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSED_PAIRS]
    for label, prediction in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[label, prediction]:
            content["pairs"].append(
                {
                    "label": classes[label],
                    "prediction": classes[prediction],
                    "count": int(wrong[label, prediction]),
                    "total": int(totals[label]),
                }
            )
    return content


def _class_differences(first: str, second: str, rows: list[ClassDifference], limit: int = 30) -> Markup:
    """Accuracy of every class in both networks, joined by a line; of many classes the largest gains and losses."""
    if len(rows) > limit:
        rows = rows[: limit // 2] + rows[-(limit // 2) :]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.8, 0.9 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="x")
        for row, entry in enumerate(rows):
            colour = COLOURS[2] if entry.difference > 0 else COLOURS[5] if entry.difference < 0 else COLOURS[7]
            axes.plot([100 * entry.second, 100 * entry.first], [row, row], color=colour, linewidth=2)
        positions = range(len(rows))
        axes.plot([100 * r.second for r in rows], positions, "o", color=COLOURS[7], label=second, markersize=6)
        axes.plot([100 * r.first for r in rows], positions, "o", color=COLOURS[0], label=first, markersize=6)
        axes.set_yticks(positions, [f"{entry.name} ({entry.num_videos})" for entry in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-3, 103)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("videos of the class recognised, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        return svg(figure, f"classes {first} − {second}", f"Accuracy per class: {first} − {second}")


PRESENTATION = ClassificationPresentation()

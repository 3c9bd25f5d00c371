"""``compare``: compares two score files."""

import argparse
import json
from pathlib import Path

HELP = "the paired difference of two score files, per class too, and how far their logits are apart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, help="scores.h5")
    parser.add_argument("second", type=Path, help="scores.h5 of the same videos")
    parser.add_argument("--classes", type=int, default=10, help="classes to show, most different first (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pipeline_lib.errors import UserError
    from pipeline_lib.tasks.classification.comparison import (
        paired_difference,
        per_class_differences,
        student_teacher_distance,
    )
    from pipeline_lib.tasks.classification.scores import ScoreFile
    from pipeline_lib.tasks.results import signed
    from pipeline_lib.text_table import text_table

    first, second = ScoreFile(options.first), ScoreFile(options.second)
    difference = paired_difference([first], [second], (str(options.first), str(options.second)))
    classes = sorted(per_class_differences(first, second), key=lambda row: (-abs(row.difference), row.name))
    try:
        distance, apart = student_teacher_distance(first, second), ""
    except UserError as error:
        distance, apart = None, f"the logits cannot be compared: {error}"
    if options.json:
        record = {
            "video_top1_difference": difference.as_data(),
            "per_class": [asdict(row) | {"difference": row.difference} for row in classes],
            "distance": distance.as_data() if distance else None,
        }
        print(json.dumps(record, ensure_ascii=False))
        return 0
    mean, low, high = (signed(100 * value) for value in (difference.mean, difference.low, difference.high))
    print(f"Video@1: {mean} points, 95 % interval {low} … {high} (paired bootstrap, {difference.num_videos} videos)")
    if distance:
        print(
            f"logits: mean squared difference {distance.mse:.4f}, KL(second ‖ first) {distance.kl:.4f} nats, "
            f"same top-1 in {100 * distance.agreement:.1f} % of {distance.num_clips} clips"
        )
    else:
        print(apart)
    rows = [
        [
            row.name,
            str(row.num_videos),
            f"{100 * row.first:.1f}",
            f"{100 * row.second:.1f}",
            signed(100 * row.difference),
            f"{signed(100 * row.low)} … {signed(100 * row.high)}",
        ]
        for row in classes[: max(0, options.classes)]
    ]
    if rows:
        print(text_table(["class", "videos", "first", "second", "difference", "95 % interval"], rows))
    return 0

"""``predict``: the most probable classes of videos: files, folders, globs, or what comes through standard input."""

import argparse
import csv
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline_lib.evaluation.experiment import TrainedExperiment
    from pipeline_lib.evaluation.prediction import Prediction

HELP = "the top classes of videos (files, folders, globs, or - for standard input) by trained or public networks"
STANDARD_INPUT = "-"
COLUMNS = ("video", "second", "rank", "class", "probability", "problem")
FORMS = (".csv", ".json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="files, folders, globs, or - for a video through standard input"
    )
    parser.add_argument("--experiment", nargs="+", default=[], help="trained experiments; several are averaged")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        help="public networks (torchvision/r2plus1d_18) or paths of weights.safetensors, averaged with the others",
    )
    parser.add_argument("--root", type=Path, default=Path("output"), help="output root (default: output)")
    parser.add_argument("--split", type=int, default=1, help="split of the run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")
    parser.add_argument("--clips", help="uniformly spaced clips, or all_frames (default: 10; of a stream's window: 1)")
    parser.add_argument("--crops", type=int, choices=(1, 3), default=1, help="crops per clip (default: 1)")
    parser.add_argument("--every", type=float, default=1.0, help="-: seconds between two predictions (default: 1)")
    parser.add_argument("--window", type=int, help="-: frames that a prediction sees (default: those of a clip)")
    parser.add_argument("--top", type=int, default=5, help="how many classes to print (default: 5)")
    parser.add_argument("--short-side", type=int, help="of the frames, px; only needed if the frames shards are gone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    parser.add_argument("--out", type=Path, help="predictions.csv or predictions.json, instead of tables")
    parser.add_argument("--json", action="store_true", help="print a JSON object per prediction instead of tables")


@dataclass(frozen=True)
class Row:
    """What was predicted of one video, or of one moment of a stream; or why nothing was.

    Attributes:
        video: as the user named it; a folder's and a glob's files by their paths.
        prediction: None with ``problem``.
        second: of a stream, the time of the last frame that was seen.
        problem: why there is no prediction; empty otherwise.
    """

    video: str
    prediction: "Prediction | None" = None
    second: float | None = None
    problem: str = ""

    def as_data(self, names: Sequence[str], count: int) -> dict[str, Any]:
        """The row as one plain object."""
        data: dict[str, Any] = {"video": self.video}
        if self.second is not None:
            data["second"] = round(self.second, 3)
        if self.prediction is None:
            return data | {"problem": self.problem}
        found = self.prediction
        classes = [{"class": name, "probability": round(share, 6)} for name, share in found.top(count)]
        counts = {"num_frames": found.num_frames, "num_clips": found.num_clips}
        return data | {"experiments": list(names)} | counts | {"classes": classes}

    def as_lines(self, count: int) -> Iterator[tuple[str, ...]]:
        """The row as lines of ``COLUMNS``, one per class."""
        second = "" if self.second is None else f"{self.second:.3f}"
        if self.prediction is None:
            yield self.video, second, "", "", "", self.problem
            return
        for rank, (name, share) in enumerate(self.prediction.top(count), 1):
            yield self.video, second, str(rank), name, f"{share:.6f}", ""


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.errors import UserError

    _check(options)
    names = [*options.experiment, *options.weights]
    if STANDARD_INPUT in options.videos and (len(options.videos) > 1 or len(names) > 1):
        raise UserError("-: a stream is judged alone and by one network: give no other VIDEO, and one name.")
    experiments = _loaded(options)
    if options.videos == [STANDARD_INPUT]:
        rows = _of_stream(options, experiments[0])
    else:
        rows = _of_files(options, experiments, list(found_videos(options.videos)))
    return _show(options, names, rows)


def _check(options: argparse.Namespace) -> None:
    from pipeline_lib.errors import UserError

    if not options.experiment and not options.weights:
        raise UserError("Which network? Give --experiment NAME (a trained one) or --weights torchvision/r2plus1d_18.")
    clips = options.clips
    if clips is not None and clips != "all_frames" and not (clips.isdecimal() and int(clips) > 0):
        raise UserError(f"--clips {clips}: give a positive number or all_frames.")
    if options.top < 1:
        raise UserError(f"--top {options.top}: give at least 1.")
    if not options.every > 0:
        raise UserError(f"--every {options.every:g}: give seconds, more than 0.")
    if options.short_side is not None and options.short_side < 16:
        raise UserError(f"--short-side {options.short_side}: give at least 16 pixels.")
    if options.out is not None and options.out.suffix not in FORMS:
        raise UserError(f"--out {options.out}: its name must end in .csv or .json.")
    if options.out is not None and options.out.is_dir():
        raise UserError(f"--out {options.out} is a folder; name a file in it.")


def _loaded(options: argparse.Namespace) -> list["TrainedExperiment"]:
    """Every network, loaded once for all videos."""
    from pipeline_lib.errors import UserError
    from pipeline_lib.evaluation.experiment import load

    common = {"device": options.device, "short_side": options.short_side, "num_threads": max(1, options.threads)}
    found = [load(name, options.root, options.split, options.seed, **common) for name in options.experiment]
    found += [load(name, options.root, **common) for name in options.weights]
    names = [*options.experiment, *options.weights]
    for name, one in zip(names, found, strict=True):
        if one.classes != found[0].classes:
            raise UserError(f"{name} knows other classes than {names[0]}: their scores cannot be averaged.")
    return found


def found_videos(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The files behind words of the command line, each with why it cannot be used, if that is known already.

    A folder stands for the video files in it and below it, a word with ``*``, ``?`` or ``[`` for the files that fit it,
    both sorted by name. A word behind which there is nothing is yielded with the reason.
    """
    from pipeline_lib.manifests.matching import VIDEO_ENDINGS, is_hidden

    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in VIDEO_ENDINGS and not is_hidden(file.name) and file.is_file()
            )
            yield from ((str(file), "") for file in inside)
            if not inside:
                yield word, f"the folder holds no video file ({', '.join(sorted(VIDEO_ENDINGS))})"
        elif not path.exists() and glob.has_magic(word):
            fitting = sorted(name for name in glob.glob(word, recursive=True) if not Path(name).is_dir())  # noqa: PTH207
            yield from ((name, "") for name in fitting)
            if not fitting:
                yield word, "no file fits this pattern"
        else:
            yield word, ""


def _of_files(
    options: argparse.Namespace, experiments: Sequence["TrainedExperiment"], videos: Sequence[tuple[str, str]]
) -> Iterator[Row]:
    """One row a video; a video that cannot be used never ends the others."""
    from pipeline_lib.errors import UserError
    from pipeline_lib.evaluation.prediction import mean_prediction

    clips: Any = options.clips or "10"
    num_clips = clips if clips == "all_frames" else int(clips)
    for video, problem in videos:
        if problem:
            yield Row(video, problem=problem)
            continue
        try:
            found = [one.predict(video, num_clips, options.crops) for one in experiments]
            yield Row(video, mean_prediction(found))
        except (UserError, OSError) as error:
            # The message's first words are the file's name, which the row has already.
            text = str(error).removeprefix(f"{video} cannot be used: ").removeprefix(f"{video}: ")
            yield Row(video, problem=text.rstrip("."))


def _of_stream(options: argparse.Namespace, experiment: "TrainedExperiment") -> Iterator[Row]:
    """One row each ``--every`` seconds of what comes through standard input."""
    from pipeline_lib.errors import UserError
    from pipeline_lib.evaluation.stream import predict_stream, standard_input, window_length

    if options.clips == "all_frames" or options.crops != 1:
        raise UserError("-: a stream has no end, so --clips is a number (of the window's clips), and --crops is 1.")
    if sys.stdin.isatty():
        raise UserError("-: standard input is a terminal. Give it a video: ffmpeg -i VIDEO -f nut - | …")
    trained, frame_format = experiment.trained, experiment.frame_format
    with standard_input(frame_format) as (frames, rate):
        window = window_length(trained.specification, rate, options.window)
        every = max(1, round(options.every * rate))
        clips, threads = int(options.clips or "1"), experiment.num_threads
        for found in predict_stream(trained, frame_format, frames, rate, window, every, clips, threads):
            yield Row(STANDARD_INPUT, found, ((found.last_frame or 0) + 1) / rate)


def _show(options: argparse.Namespace, names: Sequence[str], rows: Iterator[Row]) -> int:
    """Print or write rows as they come; 1 if a video could not be used, or nothing came."""
    from pipeline_lib.artefacts.atomic import atomic_path

    num_good = num_bad = 0
    with ExitStack() as stack:
        file: IO[str] | None = None
        if options.out is not None:
            temporary = stack.enter_context(atomic_path(options.out))
            file = stack.enter_context(open(temporary, "w", encoding="utf-8", newline=""))
        writer = _Writer(file, options.out.suffix if options.out else "", names, options.top)
        # Ctrl-C ends a stream; what was predicted is written.
        with suppress(KeyboardInterrupt):
            for row in rows:
                num_good += row.prediction is not None
                num_bad += row.prediction is None
                if row.prediction is None:
                    print(f"{row.video}: {row.problem}", file=sys.stderr, flush=True)
                if file is not None:
                    writer.write(row)
                elif options.json:
                    print(json.dumps(row.as_data(names, options.top), ensure_ascii=False), flush=True)
                elif row.prediction is not None:
                    print(_text(row, names, options.top), flush=True)
        writer.close()
    if options.out is not None:
        print(f"{options.out}: {num_good} predictions" + (f", {num_bad} without, the reason beside" if num_bad else ""))
    elif num_bad and num_good + num_bad > 1:
        print(f"{num_bad} of {num_good + num_bad} could not be used", file=sys.stderr)
    return 0 if num_good and not num_bad else 1


class _Writer:
    """Rows as lines of CSV, or as one JSON list."""

    def __init__(self, file: IO[str] | None, form: str, names: Sequence[str], top: int) -> None:
        self._file, self._form, self._names, self._top = file, form, names, top
        self._separator = "["
        if file is not None and form == ".csv":
            self._csv = csv.writer(file)
            self._csv.writerow(COLUMNS)

    def write(self, row: Row) -> None:
        """Add a row."""
        assert self._file is not None
        if self._form == ".csv":
            self._csv.writerows(row.as_lines(self._top))
        else:
            text = json.dumps(row.as_data(self._names, self._top), ensure_ascii=False)
            self._file.write(f"{self._separator}\n{text}")
            self._separator = ","

    def close(self) -> None:
        """End the list."""
        if self._file is not None and self._form == ".json":
            self._file.write("[]\n" if self._separator == "[" else "\n]\n")


def _text(row: Row, names: Sequence[str], count: int) -> str:
    """A table for one video, one line for one moment of a stream."""
    from pipeline_lib.text_table import text_table

    found = row.prediction
    assert found is not None
    if row.second is not None:
        return f"{row.second:8.2f} s  " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.top(count))
    table = text_table(["class", "probability"], [[name, f"{100 * share:.1f} %"] for name, share in found.top(count)])
    return f"{table}\n{' + '.join(names)}: {found.num_clips} clips of {found.num_frames} frames of {row.video}\n"

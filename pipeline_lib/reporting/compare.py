"""The differences that a report shows."""

from dataclasses import dataclass

from pipeline_lib.errors import UserError
from pipeline_lib.reporting.collect import Report
from pipeline_lib.tasks.results import Difference, EvaluatedRun, Result, load_presentation

BASELINE_STAGES = ("train_baseline", "pretrain")


@dataclass(frozen=True)
class Comparison:
    """First − second on the videos that both judged, or why they cannot be compared."""

    first: Result
    second: Result
    difference: Difference | None
    problem: str = ""

    @property
    def label(self) -> str:
        """``first − second``."""
        return f"{self.first.name} − {self.second.name}"

    @property
    def verdict(self) -> str:
        """What the interval says about the sign of the difference."""
        if self.difference is None:
            return "not comparable"
        if self.difference.low > 0:
            return "better"
        if self.difference.high < 0:
            return "worse"
        return "no clear difference"


def default_pairs(report: Report) -> list[tuple[str, str]]:
    """Each student, and each ensemble, against the RGB baselines on the same data set."""
    experiments = report.specification.experiments
    pairs = []
    for first in experiments:
        if first.stage not in ("distill", "ensemble"):
            continue
        for second in experiments:
            same = first.dataset == second.dataset and first.name != second.name
            if same and second.stage in BASELINE_STAGES and second.modality == "rgb":
                pairs.append((first.name, second.name))
    return pairs


def _common_runs(first: Result, second: Result) -> list[tuple[EvaluatedRun, EvaluatedRun]]:
    """Runs of equal split and seed; if no seed is common, runs of the same split in order."""
    by_place = {(run.split, run.seed): run for run in second.runs}
    common = [(run, by_place[run.split, run.seed]) for run in first.runs if (run.split, run.seed) in by_place]
    if common:
        return common
    splits = {run.split for run in first.runs} & {run.split for run in second.runs}
    return [
        pair
        for split in sorted(splits)
        for pair in zip(
            [run for run in first.runs if run.split == split],
            [run for run in second.runs if run.split == split],
            strict=False,
        )
    ]


def runs_of_a_common_split(first: Result, second: Result) -> tuple[list[EvaluatedRun], list[EvaluatedRun]]:
    """All runs of both on the first split that both have: splits judge different videos.

    Raises:
        UserError: they have no split in common.
    """
    common = {run.split for run in first.runs} & {run.split for run in second.runs}
    if not common:
        raise UserError(f"{first.name} and {second.name} have no split in common.")
    ours, theirs = ([run for run in result.runs if run.split == min(common)] for result in (first, second))
    return ours, theirs


def compare(report: Report) -> list[Comparison]:
    """The report's differences, in the order of the specification."""
    comparisons = []
    for first_name, second_name in report.specification.compare or default_pairs(report):
        for protocol in dict.fromkeys(result.protocol for result in report.results):
            first, second = report.result(first_name, protocol), report.result(second_name, protocol)
            if first is None or second is None:
                continue
            names = (first_name, second_name)
            try:
                if first.task != second.task:
                    raise UserError(f"{first_name} and {second_name} are judged by different tasks.")
                ours, theirs = runs_of_a_common_split(first, second)
                paired = [run.seed for run in ours] == [run.seed for run in theirs]
                files = [[run.predictions for run in runs] for runs in (ours, theirs)]
                difference = load_presentation(first.task).difference(files[0], files[1], names, paired)
                comparisons.append(Comparison(first, second, difference))
            except UserError as error:
                comparisons.append(Comparison(first, second, None, str(error)))
    return comparisons


@dataclass(frozen=True)
class TaughtBy:
    """The distance of a student from its teacher."""

    student: str
    teacher: str
    protocol: str
    distance: dict[str, float] | None
    problem: str = ""


def teacher_distances(report: Report) -> list[TaughtBy]:
    """The distance of every student whose teacher is in the report, and of its baseline, which had no teacher."""
    rows = []
    for result in report.results:
        teacher_name = result.experiment.teacher
        teacher = report.result(teacher_name, result.protocol) if teacher_name else None
        if teacher_name is None or teacher is None or teacher.task != result.task:
            continue
        baselines = [
            other
            for other in report.results
            if other.protocol == result.protocol
            and other.task == result.task
            and other.experiment.dataset == result.experiment.dataset
            and other.experiment.stage in BASELINE_STAGES
            and other.experiment.modality == "rgb"
        ]
        for student in [result, *baselines]:
            pairs = _common_runs(student, teacher)
            try:
                if not pairs:
                    raise UserError("no run in common")
                distance = load_presentation(student.task).distance(*(run.predictions for run in pairs[0]))
                rows.append(TaughtBy(student.name, teacher_name, result.protocol, distance))
            except UserError as error:
                rows.append(TaughtBy(student.name, teacher_name, result.protocol, None, str(error)))
    return [row for place, row in enumerate(rows) if row not in rows[:place]]

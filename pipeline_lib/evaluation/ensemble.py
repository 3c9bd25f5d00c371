"""The ensemble stage: combines the predictions of some runs from their files, without a network."""

from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.layout import METRICS, SCORES, Layout
from pipeline_lib.artefacts.records import content_digest, distribution_versions, read_record
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.configuration.specification import EnsembleSpecification
from pipeline_lib.evaluation.code import ensemble_modules
from pipeline_lib.evaluation.results import read_metrics, write_metrics
from pipeline_lib.tasks.files import combine, figures_of


def evaluate_ensemble(specification: EnsembleSpecification, root: Path, output: Path) -> dict[str, Any]:
    """Make ``scores.h5`` and ``metrics.json`` of an ensemble from its members' score files.

    Args:
        specification: the members' runs (``{experiment}/{split}-{seed}``) and the protocol.
        root: output root.
        output: folder of the two files.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: a member's score file is missing, or the members have other classes or no video in common.
    """
    layout, task = Layout(root), specification.task
    scores, metrics = output / SCORES, output / METRICS
    with Stage("ensemble", ensemble_modules(specification.task), scores, [metrics], root) as stage:
        members = {}
        for member in specification.members:
            experiment, _, run = member.partition("/")
            split, _, seed = run.partition("-")
            members[member] = layout.scores(experiment, split, seed, specification.protocol_name)
        # The members judge the same list of one manifest.
        counted = read_metrics(members[specification.members[-1]].with_name(METRICS))
        named = read_record(members[specification.members[0]]) or {}
        if stage.is_finished(
            {
                "task": task,
                "experiment": specification.experiment,
                "split": specification.split,
                "seed": specification.seed,
                "members": specification.members,
                "protocol": specification.protocol.model_dump(),
            },
            {path: content_digest(path) for path in members.values()},
            distribution_versions(["numpy", "h5py"]),
            # A comparison needs the manifest to know that two files judge the same videos.
            {key: value for key, value in named.get("inputs", {}).items() if key.startswith("manifests/")},
        ):
            return read_metrics(metrics)
        combine(task, members, scores, stage.record)
        figures = figures_of(task, scores)
        # Only videos that all members have are combined.
        counts = counted["counts"] | {"evaluated": figures["num_videos"]}
        counts["rejected_later"] = counts["accepted"] - counts["evaluated"]
        record = {
            "experiment": specification.experiment,
            "split": specification.split,
            "seed": specification.seed,
            "protocol": specification.protocol_name,
            "dataset": counted["dataset"],
            "subset": counted["subset"],
            "members": specification.members,
            "task": task,
            "counts": counts,
        } | figures
        write_metrics(metrics, record)
        stage.finish()
    return record

"""What the rules call: wildcards in, paths and parameters out.

Snakemake calls these methods with a job's wildcards. Problems of the user become Snakemake's own error, which it prints
as one message.
"""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property, wraps
from pathlib import Path
from types import FunctionType
from typing import Any, NoReturn, ParamSpec, TypeVar

from pydantic import BaseModel

from pipeline_lib.artefacts import stages
from pipeline_lib.artefacts.fingerprint import code_fingerprint, module_file
from pipeline_lib.configuration.loading import CONFIGURATION_FILE, load
from pipeline_lib.configuration.plan import SELECTED, Plan, Run
from pipeline_lib.configuration.presence import check_data
from pipeline_lib.configuration.specification import DownloadSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import names, resolve
from pipeline_lib.training.code import training_modules

P = ParamSpec("P")
R = TypeVar("R")


@cache
def _keywords(module: str) -> frozenset[str]:
    """The options of a network's builder, read from the source: an import would bring torch, which takes seconds."""
    path = module_file(module)
    assert path is not None, module
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "build":
            return frozenset(argument.arg for argument in node.args.kwonlyargs)
    raise AssertionError(f"{module} has no build")


def network_options() -> dict[str, frozenset[str]]:
    """The options that each network takes."""
    return {name: _keywords(resolve(name)[0]) for name in names()}


def load_plan(
    folder: str | Path, overlays: Iterable[str | Path] = (), changes: Mapping[str, Any] | None = None
) -> Plan:
    """Read the configuration in ``folder`` and plan its jobs.

    Raises:
        UserError: the configuration is not valid.
    """
    base = Path(os.path.relpath(folder)) / CONFIGURATION_FILE
    return Plan(load(base, [Path(path) for path in overlays], changes, network_options()), resolve)


def use_this_library(folder: str | Path) -> None:
    """Let every job run the library in ``folder`` with the interpreter that runs Snakemake, activated or not.

    Jobs say ``python``: in a conda environment of their own it is that environment's.
    """
    for name, entry in (("PATH", Path(sys.executable).parent), ("PYTHONPATH", folder)):
        others = [other for other in os.environ.get(name, "").split(os.pathsep) if other and other != str(entry)]
        os.environ[name] = os.pathsep.join([str(entry), *others])


def _text(specification: BaseModel) -> str:
    return specification.model_dump_json()


def _paths(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]


def _refuse(error: UserError) -> NoReturn:
    """End Snakemake with a message; it would print an exception of an input function as a traceback."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(1)


class Jobs:
    """Input and parameter functions of the rules.

    Args:
        plan: the jobs of the configuration.
        error: the exception that Snakemake prints as a message.
    """

    def __init__(self, plan: Plan, error: type[Exception]) -> None:
        self.plan = plan
        self.layout = plan.layout
        for name, member in vars(type(self)).items():
            if not name.startswith("_") and isinstance(member, FunctionType):
                setattr(self, name, self._reported(getattr(self, name), error))

    @staticmethod
    def _reported(function: Callable[P, R], error: type[Exception]) -> Callable[P, R]:
        @wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> R:
            try:
                return function(*arguments, **named)
            except UserError as problem:
                raise error(str(problem)) from None

        return call

    def _check_data(self, wanted: str, datasets: Iterable[str]) -> None:
        try:
            check_data(self.plan, wanted, datasets)
        except UserError as problem:
            _refuse(problem)

    @staticmethod
    def _run(wildcards: Any) -> Run:
        return Run(wildcards.experiment, int(wildcards.split), int(wildcards.seed))

    @staticmethod
    def one_of(names: Iterable[str]) -> str:
        """A wildcard constraint: exactly these names; nothing if there are none."""
        return "|".join(re.escape(name) for name in names) or "(?!)"

    def root(self, _: Any) -> str:
        """The output root."""
        return str(self.layout.root)

    # Data

    def downloads(self, _: Any) -> list[str]:
        """The summaries of every configured download."""
        names = self.plan.configuration.downloads
        if not names:
            _refuse(
                UserError(
                    "The target download has nothing to fetch: `downloads` in the configuration is empty. "
                    "docs/download.md says what to write there."
                )
            )
        return _paths([self.layout.download_summary(name) for name in names])

    def download(self, wildcards: Any) -> str:
        """Specification of a download."""
        name = wildcards.source
        return _text(DownloadSpecification(name=name, download=self.plan.configuration.downloads[name]))

    def generate(self, wildcards: Any) -> str:
        """Specification of a generated data set."""
        return _text(self.plan.generate(wildcards.dataset))

    def annotations(self, wildcards: Any) -> list[str]:
        """The lists that a manifest is built from; they are looked for first."""
        self._check_data(f"The manifest of {wildcards.dataset}", [wildcards.dataset])
        return self.plan.annotation_files(wildcards.dataset)

    def manifest(self, wildcards: Any) -> str:
        """Specification of a manifest."""
        return _text(self.plan.manifest(wildcards.dataset))

    def table(self, wildcards: Any) -> str:
        """The manifest's table of the data set that a run reads."""
        return str(self.layout.manifest(self.plan.dataset_of(wildcards.experiment)))

    def summary(self, wildcards: Any, checkpoints: Any) -> str:
        """The manifest's summary of the data set that a run reads, once it is built."""
        return self._summary(self.plan.dataset_of(wildcards.experiment), checkpoints)

    @staticmethod
    def _summary(dataset: str, checkpoints: Any) -> str:
        return str(checkpoints.manifest.get(dataset=dataset).output.summary)

    def shard_list(self, wildcards: Any, checkpoints: Any) -> str:
        """A shard's list of videos, once the manifest is built."""
        checkpoints.manifest.get(dataset=wildcards.dataset)
        path = self.layout.shard_list(wildcards.dataset, wildcards.shard)
        if not path.exists():
            raise UserError(
                f"{path} is missing, though the manifest of {wildcards.dataset} is built. "
                f"Build it again: --forcerun manifest, or delete {self.layout.manifest_folder(wildcards.dataset)}."
            )
        return str(path)

    def frames_shard(self, wildcards: Any, checkpoints: Any) -> str:
        """A shard of frames, once the manifest is built: asked for before, Snakemake would count it as made anew."""
        checkpoints.manifest.get(dataset=wildcards.dataset)
        return str(self.layout.frames(wildcards.dataset, wildcards.frame_format, wildcards.shard))

    def frames(self, wildcards: Any) -> str:
        """Specification of a frames shard."""
        return _text(self.plan.frames(wildcards.dataset, wildcards.frame_format))

    def motion(self, wildcards: Any) -> str:
        """Specification of a motion shard."""
        return _text(self.plan.motion(wildcards.dataset, wildcards.frame_format, wildcards.motion))

    def maximum_reject_share(self, wildcards: Any) -> str:
        """Share of a shard's videos that may be unusable."""
        return str(self.plan.configuration.datasets[wildcards.dataset].maximum_reject_share)

    def motion_code(self, wildcards: Any) -> str:
        """Fingerprint of a motion kind's code."""
        kind = self.plan.configuration.motions[wildcards.motion]
        return code_fingerprint(stages.motion_modules(kind.method, kind.parameters))

    @cached_property
    def generate_code(self) -> str:
        """Fingerprint of the generated data sets' code."""
        return code_fingerprint(stages.GENERATE)

    @cached_property
    def manifest_code(self) -> str:
        """Fingerprint of the manifests' code."""
        return code_fingerprint(stages.MANIFEST)

    @cached_property
    def frames_code(self) -> str:
        """Fingerprint of the frames' code."""
        return code_fingerprint(stages.FRAMES)

    @cached_property
    def strength_code(self) -> str:
        """Fingerprint of the code that measures how strong motion is."""
        return code_fingerprint(stages.STRENGTH)

    @cached_property
    def ensemble_code(self) -> str:
        """Fingerprint of the ensembles' code."""
        return code_fingerprint(stages.ENSEMBLE)

    @cached_property
    def report_code(self) -> str:
        """Fingerprint of the reports' code."""
        return code_fingerprint(stages.REPORT)

    # Training and evaluation

    def training_shards(self, wildcards: Any) -> list[str]:
        """The shards that a training reads."""
        return _paths(self.plan.training_shards(self._run(wildcards)))

    def source_weights(self, wildcards: Any) -> list[str]:
        """The weights that a training starts or learns from."""
        return _paths(self.plan.source_weights(self._run(wildcards)))

    def training(self, wildcards: Any) -> str:
        """Specification of a training."""
        return _text(self.plan.training(self._run(wildcards)))

    def training_code(self, wildcards: Any) -> str:
        """Fingerprint of a training's code."""
        return code_fingerprint(training_modules(self.plan.training(self._run(wildcards))))

    def evaluation_shards(self, wildcards: Any) -> list[str]:
        """The shards that an evaluation reads."""
        return _paths(self.plan.evaluation_shards(self._run(wildcards)))

    def evaluation(self, wildcards: Any) -> str:
        """Specification of an evaluation."""
        return _text(self.plan.evaluation(self._run(wildcards), wildcards.protocol))

    def evaluation_code(self, wildcards: Any) -> str:
        """Fingerprint of an evaluation's code."""
        name = self.plan.experiment(wildcards.experiment).model.name
        return code_fingerprint(stages.evaluation_modules(resolve(name)[0]))

    def retrieval_code(self, wildcards: Any) -> str:
        """Fingerprint of a retrieval's code."""
        name = self.plan.experiment(wildcards.experiment).model.name
        return code_fingerprint(stages.retrieval_modules(resolve(name)[0]))

    def member_scores(self, wildcards: Any) -> list[str]:
        """The score files that an ensemble combines."""
        return _paths(self.plan.scores(run, wildcards.protocol) for run in self.plan.members(self._run(wildcards)))

    def ensemble(self, wildcards: Any) -> str:
        """Specification of an ensemble's evaluation."""
        return _text(self.plan.ensemble(self._run(wildcards), wildcards.protocol))

    # Reports and targets

    def report(self, wildcards: Any) -> str:
        """Specification of a report."""
        return _text(self.plan.report(wildcards.target))

    def report_inputs(self, wildcards: Any) -> list[str]:
        """The results that a report shows."""
        return _paths(self.plan.report_inputs(wildcards.target))

    def report_tables(self, wildcards: Any) -> list[str]:
        """The manifests that a report counts."""
        return _paths(self.layout.manifest(dataset) for dataset in self.plan.report_datasets(wildcards.target))

    def report_summaries(self, wildcards: Any, checkpoints: Any) -> list[str]:
        """The summaries of those manifests, once they are built."""
        return [self._summary(dataset, checkpoints) for dataset in self.plan.report_datasets(wildcards.target)]

    def target(self, name: str) -> Callable[[Any], list[str]]:
        """The input function of a target: its report and what lies behind it, if the data are there."""

        def report(_: Any) -> list[str]:
            self._check_data(f"The target {name}", self.plan.report_datasets(name))
            names = [reported.name for reported in self.plan.report(name).experiments]
            return _paths([self.layout.report(name), *self.plan.intermediates(names)])

        return report

    def selected_report(self, wildcards: Any) -> list[str]:
        """The report on what the configuration selects, and what lies behind it."""
        return self.target(SELECTED)(wildcards)

    def selected_metrics(self, _: Any) -> list[str]:
        """The metrics of what the configuration selects, and what lies behind them."""
        names = self.plan.experiments_of(self.plan.configuration.select)
        self._check_data("The target evaluate", self.plan.datasets_behind(names))
        return _paths([*self.plan.metrics(names), *self.plan.retrievals(names), *self.plan.intermediates(names)])

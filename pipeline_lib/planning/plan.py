"""From a checked configuration to jobs: what each stage gets, and which artefacts a target asks for."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.digest import digest
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.experiments import Ensemble, Experiment, Target
from pipeline_lib.configuration.loading import CONFIGURATION_FILE, load
from pipeline_lib.configuration.messages import nearest
from pipeline_lib.configuration.motions import METHODS
from pipeline_lib.configuration.references import member_name, refuse_misfits
from pipeline_lib.configuration.root import Configuration
from pipeline_lib.configuration.specification import (
    DownloadSpecification,
    FramesSpecification,
    ManifestSpecification,
    MotionSpecification,
    PrintedNumbers,
    ReportedExperiment,
    ReportSpecification,
)
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.code import manifest_modules
from pipeline_lib.models.catalogue import NETWORKS
from pipeline_lib.planning.fidelity import as_published, differences
from pipeline_lib.planning.run import Run, with_sources
from pipeline_lib.planning.sharding import with_shards
from pipeline_lib.planning.starts import check_fetchable, check_starts

SELECTED = "selected"
"""What the configuration selects, where a name is asked for."""
LONGEST_NAME = 80
SUBSETS = ("train", "validation")


def load_plan(
    folder: str | Path,
    overlays: Iterable[str | Path] = (),
    changes: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> "Plan":
    """Read the configuration in ``folder`` and plan its jobs.

    Args:
        folder: of config.yaml and ``workflow/``.
        overlays: further files, later over earlier.
        changes: values that go over all files.
        settings: ``KEY=VALUE`` with dotted keys (``--set``), over all of these.

    Raises:
        UserError: the configuration is not valid.
    """
    base = Path(os.path.relpath(folder)) / CONFIGURATION_FILE
    return Plan(
        load(base, [Path(path) for path in overlays], changes, NETWORKS, settings),
        lambda: load(base, (), None, NETWORKS),
    )


class Plan:
    """The jobs of one configuration.

    Args:
        configuration: a checked configuration.
        brought: loads the configuration without the user's files, which has the papers' experiments; None takes the
            same one.
    """

    def __init__(self, configuration: Configuration, brought: Callable[[], Configuration] | None = None) -> None:
        self.layout = Layout(Path(configuration.output))
        self.configuration = with_shards(configuration, self.layout)
        self.targets = configuration.named()
        self._runs: dict[str, list[Run]] = {}
        self._brought = brought

    @cached_property
    def published(self) -> Configuration:
        """The configuration with the papers' experiments, whole and from the papers' starts."""
        return as_published(self.configuration if self._brought is None else self._brought())

    # Names

    def names_of_stage(self, *stages: str) -> list[str]:
        """The experiments that the rules of these names run."""
        return [name for name, entry in self.configuration.experiments.items() if entry.stage in stages]

    @cached_property
    def trained_names(self) -> list[str]:
        """The experiments that have weights of their own."""
        return [name for name, entry in self.configuration.experiments.items() if isinstance(entry, Experiment)]

    @cached_property
    def generated_names(self) -> list[str]:
        """The data sets that are generated."""
        return [name for name, dataset in self.configuration.datasets.items() if dataset.is_generated]

    @cached_property
    def report_names(self) -> list[str]:
        """What a report can be asked for: each target, each experiment, and what the configuration selects."""
        names = [*self.targets, *self.configuration.experiments]
        return [*names, *({self.selected} - set(names))]

    @cached_property
    def selected(self) -> str:
        """The name of the report on what the configuration selects, so that each selection has a page of its own.

        A single target or experiment has its own page; several are ``first+second``. Of many names, those that do not
        fit are in a digest.
        """
        names = self.configuration.select
        whole = "+".join(names)
        if len(whole) <= LONGEST_NAME:
            return whole or SELECTED
        kept = whole[: LONGEST_NAME - 10].rpartition("+")[0] or names[0][: LONGEST_NAME - 10]
        return f"{kept}+{digest(names)[:8]}"

    def experiments_of(self, *names: str) -> list[str]:
        """The experiments behind names of experiments, targets and ``selected``, each once, in order."""
        found: dict[str, None] = {}
        for name in names:
            if name in self.configuration.experiments:
                found[name] = None
            elif name == SELECTED or (name == self.selected and name not in self.targets):
                found |= dict.fromkeys(self._selected_experiments())
            else:
                found |= dict.fromkeys(self._target(name).experiments)
        return list(found)

    def _selected_experiments(self) -> list[str]:
        """The experiments behind ``select``.

        Raises:
            UserError: it names nothing.
        """
        if not self.configuration.select:
            raise UserError(
                "`select` in the configuration is empty, so that the targets `report` and `evaluate` have nothing to "
                "do. Name experiments or targets there, for example select: [demo]."
            )
        return self.experiments_of(*self.configuration.select)

    def _target(self, name: str) -> Target:
        """A target or table by name.

        Raises:
            UserError: it is a table of which nothing can be run yet.
        """
        if name not in self.targets:
            table = self.configuration.tables[name]
            missing = "; ".join(dict.fromkeys(row.not_yet for row in table.rows if row.not_yet)) or "nothing of ours"
            raise UserError(f"{name} ({table.source}) cannot be run yet: {missing}.")
        return self.targets[name]

    # Runs

    def runs(self, *names: str) -> list[Run]:
        """The runs of experiments (splits × seeds) and of ensembles (splits and seeds that all members have).

        Raises:
            UserError: the members of an ensemble have no split or no seed in common.
        """
        for name in names:
            if name not in self._runs:
                self._runs[name] = [
                    Run(name, split, seed, self.configuration)
                    for split in self._splits(name)
                    for seed in self._seeds(name)
                ]
        return [run for name in names for run in self._runs[name]]

    def _splits(self, name: str) -> list[int]:
        entry = self.configuration.experiments[name]
        if isinstance(entry, Experiment):
            return entry.splits
        return self._common(name, [self._splits(member_name(member)[0]) for member in entry.members], "split")

    def _seeds(self, name: str) -> list[int]:
        entry = self.configuration.experiments[name]
        if isinstance(entry, Experiment):
            return entry.seeds
        # A member such as `NAME@3` takes that seed in every run of the ensemble.
        members = [member_name(member) for member in entry.members]
        seeds = [self._seeds(source) for source, seed in members if seed is None]
        return self._common(name, seeds or [[0]], "seed")

    @staticmethod
    def _common(name: str, numbers: list[list[int]], what: str) -> list[int]:
        common = sorted(set(numbers[0]).intersection(*numbers))
        if not common:
            raise UserError(f"experiments.{name}: its members have no {what} in common.")
        return common

    def run(self, experiment: str, split: int | str | None = None, seed: int | str | None = None) -> Run:
        """The run of this name (None: with the first split or seed), after checking that its sources exist.

        Raises:
            UserError: there is no such experiment or run, or no run that it can start or learn from.
        """
        if experiment not in self.configuration.experiments:
            valid = self.configuration.experiments
            raise UserError(f"There is no experiment `{experiment}`. {nearest(experiment, valid)}")
        split = self._splits(experiment)[0] if split is None else int(split)
        seed = self._seeds(experiment)[0] if seed is None else int(seed)
        for run in self.runs(experiment):
            if (run.split, run.seed) == (split, seed):
                with_sources([run])
                return run
        raise UserError(
            f"There is no run {experiment}/{split}-{seed}: experiments.{experiment} has the splits "
            f"{self._splits(experiment)} and the seeds {self._seeds(experiment)}."
        )

    # What the stages before a training get

    def downloads(self) -> list[Path]:
        """The summaries of every configured download.

        Raises:
            UserError: there is none.
        """
        if not self.configuration.downloads:
            raise UserError(
                "The target download has nothing to fetch: `downloads` in the configuration is empty. "
                "docs/download.md says what to write there."
            )
        return [self.layout.download_summary(name) for name in self.configuration.downloads]

    def download(self, name: str) -> DownloadSpecification:
        """What ``download`` gets."""
        return DownloadSpecification(name=name, download=self.configuration.downloads[name])

    def generate(self, name: str) -> ManifestSpecification:
        """What ``generate`` gets: only what shapes the videos."""
        dataset = self.configuration.datasets[name]
        return ManifestSpecification(name=name, dataset=Dataset(format="generated", generated=dataset.generated))

    def dataset(self, name: str) -> Dataset:
        """The data set as ``manifest build`` reads it; a generated one is the table that ``generate`` wrote."""
        dataset = self.configuration.datasets[name]
        if not dataset.is_generated:
            return dataset
        return dataset.model_copy(
            update={
                "format": "table",
                "annotations": {subset: str(self.layout.media_list(name, subset)) for subset in SUBSETS},
                "videos": [str(self.layout.media_folder(name))],
                "generated": None,
            }
        )

    def manifest(self, name: str) -> ManifestSpecification:
        """What ``manifest build`` gets: all but flips, which only the trainer uses."""
        dataset = self.dataset(name).model_copy(update={"horizontal_flip": "allowed"})
        return ManifestSpecification(name=name, dataset=dataset)

    def annotation_files(self, name: str) -> list[str]:
        """The files whose change redoes the manifest: the lists, and every file in folders of lists.

        Raises:
            UserError: a name holds braces.
        """
        dataset = self.dataset(name)
        files: list[str] = []
        for value in (*dataset.annotations.values(), dataset.filter.ids, dataset.filter.classes):
            if value is not None:
                path = Path(value)
                files += sorted(str(file) for file in path.iterdir() if file.is_file()) if path.is_dir() else [value]
        for file in files:
            if "{" in file or "}" in file:
                raise UserError(
                    f"datasets.{name}: Snakemake takes the braces in {file} for a wildcard. Rename the list or its "
                    "folder."
                )
        return files

    def shard_list(self, dataset: str, shard: str) -> Path:
        """The list of a shard's videos, after the manifest is built.

        Raises:
            UserError: the list is missing.
        """
        path = self.layout.shard_list(dataset, shard)
        if not path.exists():
            raise UserError(
                f"{path} is missing, though the manifest of {dataset} is built. "
                f"Build it again: --forcerun manifest, or delete {self.layout.manifest_folder(dataset)}."
            )
        return path

    def frames(self, dataset: str, frame_format: str) -> FramesSpecification:
        """What ``extract-frames`` gets."""
        return FramesSpecification(
            dataset=dataset,
            frame_format=frame_format,
            frames=self.configuration.frame_formats[frame_format],
            on_decode_error=self.configuration.datasets[dataset].on_decode_error,
        )

    def motion(self, dataset: str, frame_format: str, motion: str) -> MotionSpecification:
        """What ``extract-motion`` gets."""
        return MotionSpecification(
            dataset=dataset,
            frame_format=frame_format,
            motion=motion,
            motion_kind=self.configuration.motions[motion],
            device=self.configuration.hardware.device,
        )

    def reads_flow_files(self, motion: str) -> bool:
        """Whether a motion kind is read from files beside the frames."""
        return METHODS[self.configuration.motions[motion].method].reads_files

    def manifest_modules(self, name: str) -> list[str]:
        """The modules that build a data set's manifest."""
        return manifest_modules(self.dataset(name))

    # Targets and reports

    def datasets_behind(self, name: str) -> list[str]:
        """The data sets that a target needs, including those of its sources; each once, in order.

        Raises:
            UserError: an experiment behind the target does not fit what it starts or learns from.
        """
        runs = with_sources(self.runs(*self.experiments_of(name)))
        refuse_misfits(self.configuration, NETWORKS, dict.fromkeys(run.experiment for run in runs))
        check_starts(runs)
        return list(dict.fromkeys(run.dataset for run in runs))

    def check_fetchable(self, name: str, *, is_dry: bool) -> None:
        """Check that the public weights behind a target are there or can be fetched; a dry run only warns.

        Raises:
            UserError: they are not, and something would run.
        """
        check_fetchable(with_sources(self.runs(*self.experiments_of(name))), is_dry=is_dry)

    def results(self, name: str) -> list[Path]:
        """The figures of a target: metrics of every run and protocol, and retrieval if it is configured."""
        runs = self.runs(*self.experiments_of(name))
        return [path for run in runs for path in (*run.metrics, *run.retrievals)]

    def report_inputs(self, name: str) -> list[Path]:
        """What a report shows: the figures, scores, and the weights beside which the training logs lie."""
        runs = self.runs(*self.experiments_of(name))
        scores = [run.scores(protocol) for run in runs for protocol in run.entry.protocols]
        return [*self.results(name), *scores, *(run.weights for run in runs if isinstance(run.entry, Experiment))]

    def intermediates(self, name: str) -> list[Path]:
        """The shards and weights behind a target, with all that its experiments start or learn from.

        Snakemake makes a deleted file again only if a target names it; a finished report is not made again, so its
        inputs are not either.
        """
        runs = with_sources(self.runs(*self.experiments_of(name)))
        trained = [run for run in runs if isinstance(run.entry, Experiment)]
        files = [path for run in trained for path in (*run.training_shards, *run.source_weights, run.weights)]
        return list(dict.fromkeys(files))

    def _printed(self, name: str, first: Sequence[str]) -> list[PrintedNumbers]:
        """What the papers print for an experiment, the tables that are asked for before the others."""
        found: list[PrintedNumbers] = []
        tables = self.configuration.tables
        for table in dict.fromkeys([*(one for one in first if one in tables), *tables]):
            rows: dict[tuple[int, str], PrintedNumbers] = {}
            for cell in tables[table].cells:
                if cell.experiment != name or cell.printed is None:
                    continue
                protocol = cell.protocol or self.configuration.experiments[name].protocols[0]
                place = rows.setdefault(
                    (id(cell.row), protocol),
                    PrintedNumbers(
                        source=tables[table].source, protocol=protocol, differs=cell.row.differs, figures={}
                    ),
                )
                place.figures.setdefault(tables[table].columns[cell.column].figure, cell.printed)
            found += rows.values()
        return found

    def reported(self, name: str, first: Sequence[str] = ()) -> ReportedExperiment:
        """What the report says of one experiment or ensemble.

        Args:
            name: its name.
            first: tables whose numbers stand before those of others.
        """
        entry = self.configuration.experiments[name]
        run = self.runs(name)[0]
        common: dict[str, Any] = {
            "name": name,
            "dataset": run.dataset,
            "splits": sorted(set(self._splits(name))),
            "seeds": sorted(set(self._seeds(name))),
            **{key: getattr(entry, key) for key in ("description", "stage", "protocols")},
        }
        printed = self._printed(name, first)
        if printed:
            common |= {"printed": printed, "differs": differences(run, self.published)}
        if isinstance(entry, Ensemble):
            modalities = [member.trained.modality for member in run.members]
            return ReportedExperiment(**common, modality="+".join(modalities), members=entry.members)
        own = ("modality", "frame_format", "teacher", "retrieval")
        common |= {key: getattr(entry, key) for key in own} | {"start": run.start_in_words}
        clip = (run.recipe.sampling.num_frames, run.recipe.sampling.crop)
        return ReportedExperiment(
            **common, motion=run.motion, model=entry.model.name, network=run.named_model, clip=clip
        )

    def report(self, name: str) -> ReportSpecification:
        """What ``report`` gets: of a target, an experiment, or (``selected``) of everything that ``select`` names."""
        target = self.targets.get(name)
        described = target or self.configuration.experiments.get(name)
        is_described = name in self.targets or name in self.configuration.experiments
        names = [name] if is_described else self.configuration.select
        asked = [self.targets[one] for one in names if one in self.targets]
        tables = {one: self.configuration.tables[one] for named in asked for one in named.tables}
        return ReportSpecification(
            name=name,
            title="Selected experiments" if described is None else described.description,
            experiments=[self.reported(experiment, list(tables)) for experiment in self.experiments_of(name)],
            tables=tables,
            compare=[] if target is None else target.compare,
            notes=[] if target is None else target.notes,
        )

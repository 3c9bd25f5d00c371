"""The configuration, checked, and the input functions of the rules."""

import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

# Use the library beside this Snakefile and the interpreter that runs Snakemake, here and in every job. Jobs call `python`,
# so that a job in a conda environment uses that environment's interpreter.
if sys.path[0] != workflow.basedir:
    sys.path.insert(0, workflow.basedir)
for _name, _entry in (("PATH", str(Path(sys.executable).parent)), ("PYTHONPATH", str(workflow.basedir))):
    _others = [other for other in os.environ.get(_name, "").split(os.pathsep) if other not in ("", _entry)]
    os.environ[_name] = os.pathsep.join([_entry, *_others])

from pipeline_lib.artefacts.fingerprint import code_fingerprint
from pipeline_lib.cards import cards
from pipeline_lib.configuration.presence import check_data
from pipeline_lib.errors import UserError
from pipeline_lib.planning import code
from pipeline_lib.planning.current import described, reconcile
from pipeline_lib.planning.left_behind import left_behind
from pipeline_lib.planning.interrupts import end_jobs_on_interrupt
from pipeline_lib.planning.plan import load_plan


@contextmanager
def one_message():
    """End Snakemake with one message about a user's problem, because it would print an exception with a traceback."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")


with one_message():
    PLAN = load_plan(workflow.basedir, workflow.overwrite_configfiles, workflow.config_settings.config)
    if {"{", "}"} & set(str(PLAN.layout.root)):
        raise UserError(
            f"output: Snakemake takes the braces in {PLAN.layout.root} for a wildcard. Name another folder."
        )
CONFIGURATION = PLAN.configuration
LAYOUT = PLAN.layout

# Jobs of a cluster read this file too; only the process that plans sets times.
if workflow.is_main_process:
    end_jobs_on_interrupt()
    with one_message():
        _stale = described(reconcile(PLAN), LAYOUT)
    for _said in (left_behind(Path.cwd()), _stale):
        if _said:
            print(_said, file=sys.stderr)


# A function, since a plain path in front of an output's looks to snakemake --lint like a prefix that is written twice.
def output_root(wildcards):
    return str(LAYOUT.root)


def one_of(names):
    """A wildcard constraint: exactly these names; nothing if there are none."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


wildcard_constraints:
    dataset=one_of(CONFIGURATION.datasets),
    frame_format=one_of(CONFIGURATION.frame_formats),
    motion=one_of(CONFIGURATION.motions),
    protocol=one_of(CONFIGURATION.protocols),
    shard=r"\d+",
    split=r"\d+",
    seed=r"\d+",


# The GPUs of this machine


# Jobs that start here get a card each, and no more jobs run than there are cards. On a cluster its scheduler sees to that.
def _cards_here():
    plugin = workflow.executor_plugin
    is_local = plugin is None or not plugin.common_settings.non_local_exec
    is_cluster_job = not workflow.is_main_process
    return 0 if is_cluster_job or not is_local or CONFIGURATION.hardware.device == "cpu" else len(cards())


CARDS = _cards_here()
if CARDS:
    workflow.register_resource("local_gpus", CARDS)
with one_message():
    if 0 < CARDS < CONFIGURATION.hardware.gpus_per_training:
        raise UserError(
            f"hardware.gpus_per_training: {CONFIGURATION.hardware.gpus_per_training}, but {CARDS} GPUs can be used here"
        )


def launcher(num_gpus):
    """What starts a job: `python`, or what first holds as many GPUs of this machine and then starts it."""
    if not CARDS or not num_gpus:
        return "python"
    torchrun = f"torchrun --standalone --nproc-per-node={num_gpus}"
    return f"python -m pipeline_lib.cards {num_gpus} {'python' if num_gpus == 1 else torchrun}"


def gpu_threads(num_gpus, otherwise):
    """The cores that a job with so many of the cards reserves: for decoding, beside the others' jobs."""
    return max(1, workflow.cores * num_gpus // CARDS) if CARDS and num_gpus else otherwise


def uses_gpu(motion):
    return any(method.uses_gpu for method in CONFIGURATION.motions[motion].methods)


# Which run, which shard


@one_message()
def run(wildcards):
    return PLAN.run(wildcards.experiment, wildcards.split, wildcards.seed)


@one_message()
def annotation_files(wildcards):
    check_data(f"The manifest of {wildcards.dataset}", [wildcards.dataset], CONFIGURATION.datasets)
    return PLAN.annotation_files(wildcards.dataset)


# What has no other input is made again when this file is newer (pipeline_lib/planning/current.py).
def flag(what):
    return lambda wildcards: LAYOUT.flag(what, wildcards.dataset)


@one_message()
def shard_list(wildcards):
    checkpoints.manifest.get(dataset=wildcards.dataset)
    return PLAN.shard_list(wildcards.dataset, wildcards.shard)


# The manifest is asked for first: otherwise Snakemake would count a shard as new.
def frames_shard(wildcards):
    checkpoints.manifest.get(dataset=wildcards.dataset)
    return LAYOUT.frames(wildcards.dataset, wildcards.frame_format, wildcards.shard)


# The list says where flow lies that is read from files; flow that is computed needs the frames alone.
def flow_folders(wildcards):
    return [shard_list(wildcards)] if PLAN.reads_flow_files(wildcards.motion) else []


# The summary holds the manifest's digest and so decides what runs again; the table may be rewritten with the same content.
def manifest_summary(wildcards):
    return checkpoints.manifest.get(dataset=run(wildcards).dataset).output.summary


def manifest_table(wildcards):
    return LAYOUT.manifest(run(wildcards).dataset)


@one_message()
def report_summaries(wildcards):
    datasets = PLAN.datasets_behind(wildcards.target)
    return [checkpoints.manifest.get(dataset=dataset).output.summary for dataset in datasets]


def report_tables(wildcards):
    return [LAYOUT.manifest(dataset) for dataset in PLAN.datasets_behind(wildcards.target)]


# What a target asks for: its report and everything that the report needs, if the data exist


def check_target(name, wanted):
    check_data(wanted, PLAN.datasets_behind(name), CONFIGURATION.datasets)
    # Without an executor Snakemake only draws or lists the jobs.
    PLAN.check_fetchable(name, is_dry=workflow.executor_plugin is None or workflow.dryrun)


def target(name):
    @one_message()
    def report(wildcards):
        check_target(name, f"The target {name}")
        return [LAYOUT.report(name), *PLAN.intermediates(name)]

    return report


@one_message()
def selected_results(wildcards):
    check_target(PLAN.selected, "The target evaluate")
    return [*PLAN.results(PLAN.selected), *PLAN.intermediates(PLAN.selected)]


@one_message()
def downloads(wildcards):
    return PLAN.downloads()

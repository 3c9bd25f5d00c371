"""From raw video to motion-distilled networks. `snakemake --list-target-rules` lists the targets."""

import signal
import sys

from snakemake.utils import min_version

min_version("9.0")

# A cluster sends SIGUSR1 to every process of a job some time before its limit. The stage's process catches it and saves.
# Snakemake, which started the stage, must ignore it, because it would end before the stage has saved.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)


include: "rules/common.smk"
include: "rules/download.smk"
include: "rules/generate.smk"
include: "rules/manifest.smk"
include: "rules/frames.smk"
include: "rules/flow.smk"
include: "rules/pretrain.smk"
include: "rules/weights.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/targets.smk"


# Only here is it known how the jobs are run: a Snakefile is read before that.
onstart:
    # `--touch`: the user says that what exists is equivalent to what the configuration asks for.
    if workflow.touch:
        reconcile(PLAN, accept=True)
    # SLURM's own output lies below the output root, like every log, unless a profile says `slurm-logdir`.
    if getattr(workflow.executor_settings, "logdir", "no SLURM") is None:
        workflow.scheduler._executor.slurm_logdir = Path(LAYOUT.root, "logs", "slurm").resolve()


# Stages print into their logs; this is the last line of a run that did not end well.
onerror:
    print(
        "Not everything is made. What is finished stays: after a kill at once, otherwise when the cause is mended, "
        "the same command goes on from here.",
        file=sys.stderr,
    )

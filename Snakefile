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


# Stages print into their logs; this is the last line of a run that did not end well.
onerror:
    print(
        "Not everything is made. What is finished stays: after a kill at once, otherwise when the cause is mended, "
        "the same command goes on from here.",
        file=sys.stderr,
    )

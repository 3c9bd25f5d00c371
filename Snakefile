"""From raw video to motion-distilled networks. `snakemake --list-target-rules` shows what can be asked for."""

from snakemake.utils import min_version

min_version("9.0")


include: "rules/common.smk"
include: "rules/targets.smk"
include: "rules/generate.smk"
include: "rules/manifest.smk"
include: "rules/frames.smk"
include: "rules/flow.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"

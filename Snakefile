"""From raw video to motion-distilled networks. `snakemake --list-target-rules` shows what can be asked for."""

import signal

from snakemake.utils import min_version

min_version("9.0")

# A cluster sends SIGUSR1 to every process of a job some time before its limit. The stage's process catches it and saves;
# the Snakemake above it must outlive that, and its children inherit the deaf ear until they want to hear.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)


include: "rules/common.smk"


# What a user asks for by name, the first being the default. Each is its report, which waits for all that it shows.
rule demo:
    """the whole chain on generated videos: minutes, needs no data"""
    input:
        JOBS.target("demo"),


rule distill_k400:
    """D3D on Kinetics-400: teacher, distilled student, their numbers"""
    input:
        JOBS.target("distill_k400"),


rule distill_k600:
    """D3D on Kinetics-600: teacher, distilled student, their numbers"""
    input:
        JOBS.target("distill_k600"),


rule finetune_ucf101:
    """D3D from Kinetics-400, fine-tuned on UCF101"""
    input:
        JOBS.target("finetune_ucf101"),


rule finetune_hmdb51:
    """D3D from Kinetics-400, fine-tuned on HMDB51"""
    input:
        JOBS.target("finetune_hmdb51"),


rule demo_modist:
    """MoDist on generated videos: minutes, needs no data"""
    input:
        JOBS.target("demo_modist"),


rule pretrain_modist_k400:
    """MoDist on Kinetics-400, with linear classifiers on UCF101 and HMDB51"""
    input:
        JOBS.target("pretrain_modist_k400"),


rule download:
    """optional: fetch the videos that `downloads` in the configuration names"""
    input:
        JOBS.downloads,


rule evaluate:
    """scores and metrics of what `select` in the configuration names"""
    input:
        JOBS.selected_metrics,


rule report:
    """one HTML page on what `select` in the configuration names"""
    input:
        JOBS.selected_report,


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

"""Motion (flow, flow edges, frame difference) beside the frames."""

# Computed once for each kind, because a plan asks for it again for each of thousands of shards.
MOTION_CODE = {name: code_fingerprint(code.motion_modules(kind)) for name, kind in CONFIGURATION.motions.items()}


rule extract_motion:
    input:
        frames=frames_shard,
        videos=flow_folders,
    output:
        LAYOUT.motion("{dataset}", "{frame_format}", "{motion}", "{shard}"),
    log:
        LAYOUT.log("motion", "{dataset}", "{frame_format}", "{motion}", "{shard}"),
    wildcard_constraints:
        motion=one_of([name for name in CONFIGURATION.motions if uses_gpu(name)]),
    # Teachers wait for motion, so it runs before the baselines, which do not.
    priority: 10
    conda:
        "../envs/flow.yaml"
    threads: gpu_threads(1, 1)
    resources:
        local_gpus=int(CARDS > 0),
        launcher=launcher(1),
        # This is not a parameter, because it changes no artefact; so a change reruns nothing.
        maximum_loss_share=lambda wildcards: str(CONFIGURATION.datasets[wildcards.dataset].loss_share),
    params:
        specification=lambda wildcards: PLAN.motion(
            wildcards.dataset, wildcards.frame_format, wildcards.motion
        ).model_dump_json(),
        code=lambda wildcards: MOTION_CODE[wildcards.motion],
    shell:
        "exec {resources.launcher} -m pipeline_lib extract-motion --specification {params.specification:q}"
        " --frames {input.frames:q} --videos {input.videos:q} --output {output:q} --threads {threads}"
        " --maximum-loss-share {resources.maximum_loss_share} &> {log:q}"


# What computes on the CPU alone (Farneback, frame difference, what is only packed) asks for no GPU, here or on a cluster.
use rule extract_motion as extract_motion_on_cpu with:
    wildcard_constraints:
        motion=one_of([name for name in CONFIGURATION.motions if not uses_gpu(name)]),
    threads: 1
    resources:
        launcher="python",
        maximum_loss_share=lambda wildcards: str(CONFIGURATION.datasets[wildcards.dataset].loss_share),

"""Motion (flow, flow edges, frame difference) beside the frames."""


rule extract_motion:
    input:
        frames=lambda wildcards: JOBS.frames_shard(wildcards, checkpoints),
    output:
        LAYOUT.motion("{dataset}", "{frame_format}", "{motion}", "{shard}"),
    log:
        LAYOUT.log("motion", "{dataset}", "{frame_format}", "{motion}", "{shard}"),
    # Before the baselines, which do not wait for it: teachers do.
    priority: 10
    conda:
        "../envs/flow.yaml"
    threads: 1
    resources:
        # Not a parameter: what is tolerated changes no artefact, and reruns nothing.
        maximum_reject_share=JOBS.maximum_reject_share,
    params:
        specification=JOBS.motion,
        code=JOBS.motion_code,
    shell:
        "exec python -m pipeline_lib extract-motion --specification {params.specification:q}"
        " --frames {input.frames:q} --output {output:q} --threads {threads}"
        " --maximum-reject-share {resources.maximum_reject_share} &> {log:q}"

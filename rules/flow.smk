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
    # Teachers wait for motion, so it runs before the baselines, which do not.
    priority: 10
    conda:
        "../envs/flow.yaml"
    threads: 1
    resources:
        # This is not a parameter, because it changes no artefact; so a change reruns nothing.
        maximum_reject_share=lambda wildcards: str(CONFIGURATION.datasets[wildcards.dataset].maximum_reject_share),
    params:
        specification=lambda wildcards: PLAN.motion(
            wildcards.dataset, wildcards.frame_format, wildcards.motion
        ).model_dump_json(),
        code=lambda wildcards: MOTION_CODE[wildcards.motion],
    shell:
        "exec python -m pipeline_lib extract-motion --specification {params.specification:q}"
        " --frames {input.frames:q} --videos {input.videos:q} --output {output:q} --threads {threads}"
        " --maximum-reject-share {resources.maximum_reject_share} &> {log:q}"

"""RGB frames in packed shards."""


rule extract_frames:
    input:
        videos=lambda wildcards: JOBS.shard_list(wildcards, checkpoints),
    output:
        LAYOUT.frames("{dataset}", "{frame_format}", "{shard}"),
    log:
        LAYOUT.log("frames", "{dataset}", "{frame_format}", "{shard}"),
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        # Not a parameter: what is tolerated changes no artefact, and reruns nothing.
        maximum_reject_share=JOBS.maximum_reject_share,
    params:
        specification=JOBS.frames,
        code=JOBS.frames_code,
    shell:
        "exec python -m pipeline_lib extract-frames --specification {params.specification:q}"
        " --videos {input.videos:q} --output {output:q} --threads {threads}"
        " --maximum-reject-share {resources.maximum_reject_share} &> {log:q}"

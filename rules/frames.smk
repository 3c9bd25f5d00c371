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
    params:
        specification=JOBS.frames,
        code=JOBS.frames_code,
    shell:
        "exec python -m pipeline_lib extract-frames --specification {params.specification:q}"
        " --videos {input.videos:q} --output {output:q} --threads {threads} &> {log:q}"

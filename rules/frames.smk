"""RGB frames in packed shards."""


rule extract_frames:
    input:
        videos=lambda wildcards: JOBS.shard_list(wildcards, checkpoints),
    output:
        LAYOUT.frames("{dataset}", "{frame_format}", "{shard}"),
    params:
        specification=JOBS.frames,
        code=code_fingerprint(stages.FRAMES),
    threads: 1
    log:
        LAYOUT.log("frames", "{dataset}", "{frame_format}", "{shard}"),
    conda:
        "../envs/media.yaml"
    shell:
        "exec {PYTHON:q} -m pipeline_lib extract-frames --specification {params.specification:q}"
        " --list {input.videos:q} --output {output:q} --threads {threads} &> {log:q}"

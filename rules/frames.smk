"""RGB frames in packed shards."""


rule extract_frames:
    input:
        videos=shard_list,
    output:
        LAYOUT.frames("{dataset}", "{frame_format}", "{shard}"),
    log:
        LAYOUT.log("frames", "{dataset}", "{frame_format}", "{shard}"),
    conda:
        "../envs/media.yaml"
    threads: 1
    resources:
        # This is not a parameter, because it changes no artefact; so a change reruns nothing.
        maximum_loss_share=lambda wildcards: str(CONFIGURATION.datasets[wildcards.dataset].loss_share),
    params:
        specification=lambda wildcards: PLAN.frames(wildcards.dataset, wildcards.frame_format).model_dump_json(),
        code=code_fingerprint(code.FRAMES),
    shell:
        "exec python -m pipeline_lib extract-frames --specification {params.specification:q}"
        " --videos {input.videos:q} --output {output:q} --threads {threads}"
        " --maximum-loss-share {resources.maximum_loss_share} &> {log:q}"

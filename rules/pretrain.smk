"""What self-supervised pre-training reads beside the shards. The rule `pretrain` is in rules/train.smk."""


rule motion_strength:
    input:
        LAYOUT.motion("{dataset}", "{frame_format}", "{motion}", "{shard}"),
    output:
        LAYOUT.strength("{dataset}", "{frame_format}", "{motion}", "{shard}"),
    log:
        LAYOUT.log("strength", "{dataset}", "{frame_format}", "{motion}", "{shard}"),
    priority: 10
    conda:
        "../envs/training.yaml"
    params:
        code=code_fingerprint(code.STRENGTH),
    shell:
        "exec python -m pipeline_lib motion-strength --motion {input:q} --output {output:q} &> {log:q}"

"""One table per data set, and one small list per shard."""


# This is a checkpoint, so that later rules look at a shard's list only after it is written. A list that is rewritten with
# the same content then reruns nothing.
checkpoint manifest:
    input:
        annotation_files,
        flag("manifest"),
    output:
        table=LAYOUT.manifest("{dataset}"),
        summary=LAYOUT.summary("{dataset}"),
        lists=directory(LAYOUT.shard_lists("{dataset}")),
    log:
        LAYOUT.log("manifest", "{dataset}"),
    conda:
        "../envs/media.yaml"
    threads: 2
    params:
        specification=lambda wildcards: PLAN.manifest(wildcards.dataset).model_dump_json(),
        code=lambda wildcards: code_fingerprint(PLAN.manifest_modules(wildcards.dataset)),
        folder=str(LAYOUT.manifest_folder("{dataset}")),
    shell:
        "exec python -m pipeline_lib manifest build --specification {params.specification:q}"
        " --output {params.folder:q} --threads {threads} &> {log:q}"

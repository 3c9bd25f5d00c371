"""One table per data set, and one small list per shard."""


# A checkpoint: the followers look at a shard's list only when it is written, so that a list rewritten with the same
# content reruns nothing.
checkpoint manifest:
    input:
        JOBS.annotations,
    output:
        table=LAYOUT.manifest("{dataset}"),
        summary=LAYOUT.summary("{dataset}"),
        lists=directory(LAYOUT.shard_lists("{dataset}")),
    params:
        specification=JOBS.manifest,
        code=code_fingerprint(stages.MANIFEST),
        folder=LAYOUT.manifest_folder("{dataset}"),
    threads: 2
    log:
        LAYOUT.log("manifest", "{dataset}"),
    conda:
        "../envs/media.yaml"
    shell:
        "exec {PYTHON:q} -m pipeline_lib manifest build --specification {params.specification:q}"
        " --output {params.folder:q} --threads {threads} &> {log:q}"

"""The videos of the generated data sets, and their lists."""


rule generate_videos:
    output:
        lists=[LAYOUT.media_list("{dataset}", subset) for subset in ("train", "validation")],
    params:
        specification=JOBS.generate,
        code=code_fingerprint(stages.GENERATE),
        folder=LAYOUT.media_folder("{dataset}"),
    wildcard_constraints:
        dataset=JOBS.one_of(PLAN.generated_names),
    threads: 2
    log:
        LAYOUT.log("generate", "{dataset}"),
    conda:
        "../envs/media.yaml"
    shell:
        "exec {PYTHON:q} -m pipeline_lib generate --specification {params.specification:q}"
        " --output {params.folder:q} --threads {threads} &> {log:q}"

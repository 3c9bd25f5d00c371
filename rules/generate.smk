"""The videos of the generated data sets, and their lists."""


rule generate_videos:
    output:
        lists=[LAYOUT.media_list("{dataset}", subset) for subset in ("train", "validation")],
    log:
        LAYOUT.log("generate", "{dataset}"),
    wildcard_constraints:
        dataset=JOBS.one_of(PLAN.generated_names),
    conda:
        "../envs/media.yaml"
    threads: 2
    params:
        specification=JOBS.generate,
        code=JOBS.generate_code,
        folder=str(LAYOUT.media_folder("{dataset}")),
    shell:
        "exec python -m pipeline_lib generate --specification {params.specification:q}"
        " --output {params.folder:q} --threads {threads} &> {log:q}"

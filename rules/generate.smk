"""The videos of the generated data sets, and their lists."""


rule generate_videos:
    input:
        flag("videos"),
    output:
        lists=[LAYOUT.media_list("{dataset}", subset) for subset in ("train", "validation")],
    log:
        LAYOUT.log("generate", "{dataset}"),
    wildcard_constraints:
        dataset=one_of(PLAN.generated_names),
    conda:
        "../envs/media.yaml"
    threads: 2
    params:
        specification=lambda wildcards: PLAN.generate(wildcards.dataset).model_dump_json(),
        code=code_fingerprint(code.GENERATE),
        folder=str(LAYOUT.media_folder("{dataset}")),
    shell:
        "exec python -m pipeline_lib generate --specification {params.specification:q}"
        " --output {params.folder:q} --threads {threads} &> {log:q}"

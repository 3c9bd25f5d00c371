"""Score files and metrics, of networks and of ensembles."""


rule evaluate_run:
    input:
        summary=manifest_summary,
        table=ancient(manifest_table),
        shards=lambda wildcards: run(wildcards).evaluation_shards,
        weights=LAYOUT.weights("{experiment}", "{split}", "{seed}"),
    output:
        scores=LAYOUT.scores("{experiment}", "{split}", "{seed}", "{protocol}"),
        metrics=LAYOUT.metrics("{experiment}", "{split}", "{seed}", "{protocol}"),
    log:
        LAYOUT.log("evaluate", "{experiment}", "{split}-{seed}", "{protocol}"),
    wildcard_constraints:
        experiment=one_of(PLAN.trained_names),
    conda:
        "../envs/training.yaml"
    threads: gpu_threads(1, 1)
    resources:
        launcher=launcher(1),
        local_gpus=int(CARDS > 0),
    params:
        specification=lambda wildcards: run(wildcards).evaluation(wildcards.protocol).model_dump_json(),
        code=lambda wildcards: code_fingerprint(
            code.evaluation_modules(run(wildcards).trained.model.name, run(wildcards).task)
        ),
        root=output_root,
        folder=str(LAYOUT.evaluation("{experiment}", "{split}", "{seed}", "{protocol}")),
    shell:
        "exec {resources.launcher} -m pipeline_lib evaluate --specification {params.specification:q}"
        " --root {params.root:q} --output {params.folder:q} &> {log:q}"


rule retrieve:
    input:
        summary=manifest_summary,
        table=ancient(manifest_table),
        shards=lambda wildcards: run(wildcards).evaluation_shards,
        weights=LAYOUT.weights("{experiment}", "{split}", "{seed}"),
    output:
        LAYOUT.retrieval("{experiment}", "{split}", "{seed}", "{protocol}"),
    log:
        LAYOUT.log("retrieve", "{experiment}", "{split}-{seed}", "{protocol}"),
    wildcard_constraints:
        experiment=one_of(PLAN.trained_names),
    conda:
        "../envs/training.yaml"
    threads: gpu_threads(1, 1)
    resources:
        launcher=launcher(1),
        local_gpus=int(CARDS > 0),
    params:
        specification=lambda wildcards: run(wildcards).evaluation(wildcards.protocol).model_dump_json(),
        code=lambda wildcards: code_fingerprint(
            code.retrieval_modules(run(wildcards).trained.model.name, run(wildcards).task)
        ),
        root=output_root,
    shell:
        "exec {resources.launcher} -m pipeline_lib retrieve --specification {params.specification:q}"
        " --root {params.root:q} --output {output:q} &> {log:q}"


rule ensemble:
    input:
        scores=lambda wildcards: [member.scores(wildcards.protocol) for member in run(wildcards).members],
    output:
        scores=LAYOUT.scores("{experiment}", "{split}", "{seed}", "{protocol}"),
        metrics=LAYOUT.metrics("{experiment}", "{split}", "{seed}", "{protocol}"),
    log:
        LAYOUT.log("ensemble", "{experiment}", "{split}-{seed}", "{protocol}"),
    wildcard_constraints:
        experiment=one_of(PLAN.names_of_stage("ensemble")),
    conda:
        "../envs/training.yaml"
    threads: 1
    params:
        specification=lambda wildcards: run(wildcards).ensemble(wildcards.protocol).model_dump_json(),
        code=lambda wildcards: code_fingerprint(code.ensemble_modules(run(wildcards).task)),
        root=output_root,
        folder=str(LAYOUT.evaluation("{experiment}", "{split}", "{seed}", "{protocol}")),
    shell:
        "exec python -m pipeline_lib ensemble --specification {params.specification:q}"
        " --root {params.root:q} --output {params.folder:q} &> {log:q}"

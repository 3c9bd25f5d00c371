"""Score files and metrics, of networks and of ensembles."""


rule evaluate_run:
    input:
        summary=lambda wildcards: JOBS.summary(wildcards, checkpoints),
        table=ancient(JOBS.table),
        shards=JOBS.evaluation_shards,
        weights=LAYOUT.weights("{experiment}", "{split}", "{seed}"),
    output:
        scores=LAYOUT.scores("{experiment}", "{split}", "{seed}", "{protocol}"),
        metrics=LAYOUT.metrics("{experiment}", "{split}", "{seed}", "{protocol}"),
    log:
        LAYOUT.log("evaluate", "{experiment}", "{split}-{seed}", "{protocol}"),
    wildcard_constraints:
        experiment=JOBS.one_of(PLAN.trained_names),
    conda:
        "../envs/training.yaml"
    threads: 1
    params:
        specification=JOBS.evaluation,
        code=JOBS.evaluation_code,
        root=JOBS.root,
        folder=str(LAYOUT.evaluation("{experiment}", "{split}", "{seed}", "{protocol}")),
    shell:
        "exec python -m pipeline_lib evaluate --specification {params.specification:q}"
        " --root {params.root:q} --output {params.folder:q} --threads {threads} &> {log:q}"


rule retrieve:
    input:
        summary=lambda wildcards: JOBS.summary(wildcards, checkpoints),
        table=ancient(JOBS.table),
        shards=JOBS.evaluation_shards,
        weights=LAYOUT.weights("{experiment}", "{split}", "{seed}"),
    output:
        LAYOUT.retrieval("{experiment}", "{split}", "{seed}", "{protocol}"),
    log:
        LAYOUT.log("retrieve", "{experiment}", "{split}-{seed}", "{protocol}"),
    wildcard_constraints:
        experiment=JOBS.one_of(PLAN.trained_names),
    conda:
        "../envs/training.yaml"
    threads: 1
    params:
        specification=JOBS.evaluation,
        code=JOBS.retrieval_code,
        root=JOBS.root,
    shell:
        "exec python -m pipeline_lib retrieve --specification {params.specification:q}"
        " --root {params.root:q} --output {output:q} --threads {threads} &> {log:q}"


rule ensemble:
    input:
        scores=JOBS.member_scores,
    output:
        scores=LAYOUT.scores("{experiment}", "{split}", "{seed}", "{protocol}"),
        metrics=LAYOUT.metrics("{experiment}", "{split}", "{seed}", "{protocol}"),
    log:
        LAYOUT.log("ensemble", "{experiment}", "{split}-{seed}", "{protocol}"),
    wildcard_constraints:
        experiment=JOBS.one_of(PLAN.names_of_stage("ensemble")),
    conda:
        "../envs/training.yaml"
    threads: 1
    params:
        specification=JOBS.ensemble,
        code=JOBS.ensemble_code,
        root=JOBS.root,
        folder=str(LAYOUT.evaluation("{experiment}", "{split}", "{seed}", "{protocol}")),
    shell:
        "exec python -m pipeline_lib ensemble --specification {params.specification:q}"
        " --root {params.root:q} --output {params.folder:q} &> {log:q}"

"""Every training: one trainer, a rule per stage, since users force and configure rules by name."""


rule train_teacher:
    input:
        # The table's meaning is in the summary's digest; the table itself may be rewritten with the same content.
        summary=lambda wildcards: JOBS.summary(wildcards, checkpoints),
        table=ancient(JOBS.table),
        shards=JOBS.training_shards,
        weights=JOBS.source_weights,
    output:
        LAYOUT.weights("{experiment}", "{split}", "{seed}"),
    params:
        specification=JOBS.training,
        code=JOBS.training_code,
        folder=LAYOUT.experiment("{experiment}", "{split}", "{seed}"),
    wildcard_constraints:
        experiment=JOBS.one_of(PLAN.names_of_stage("train_teacher")),
    threads: PLAN.configuration.hardware.num_threads
    log:
        LAYOUT.log("train", "{experiment}", "{split}-{seed}"),
    conda:
        "../envs/training.yaml"
    shell:
        "exec {PYTHON:q} -m pipeline_lib train --specification {params.specification:q}"
        " --root {ROOT:q} --output {params.folder:q} &> {log:q}"


use rule train_teacher as train_baseline with:
    wildcard_constraints:
        experiment=JOBS.one_of(PLAN.names_of_stage("train_baseline")),


use rule train_teacher as pretrain with:
    wildcard_constraints:
        experiment=JOBS.one_of(PLAN.names_of_stage("pretrain")),


use rule train_teacher as distill with:
    wildcard_constraints:
        experiment=JOBS.one_of(PLAN.names_of_stage("distill")),


use rule train_teacher as finetune with:
    wildcard_constraints:
        experiment=JOBS.one_of(PLAN.names_of_stage("finetune")),

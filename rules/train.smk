"""Every training. They share one trainer, but each stage has a rule, because users force and configure rules by name."""


rule train_teacher:
    input:
        summary=manifest_summary,
        table=ancient(manifest_table),
        shards=lambda wildcards: run(wildcards).training_shards,
        weights=lambda wildcards: run(wildcards).source_weights,
    output:
        LAYOUT.weights("{experiment}", "{split}", "{seed}"),
    log:
        LAYOUT.log("train", "{experiment}", "{split}-{seed}"),
    wildcard_constraints:
        experiment=one_of(PLAN.names_of_stage("train_teacher")),
    # Students wait for teachers, so teachers go first and baselines fill the gaps.
    priority: 10
    conda:
        "../envs/training.yaml"
    threads: gpu_threads(CONFIGURATION.hardware.gpus_per_training, CONFIGURATION.hardware.num_threads)
    resources:
        # What starts the processes; a profile sets torchrun here (docs/cluster.md). Their number reruns nothing.
        launcher=launcher(CONFIGURATION.hardware.gpus_per_training),
        local_gpus=CONFIGURATION.hardware.gpus_per_training if CARDS else 0,
    params:
        specification=lambda wildcards: run(wildcards).training.model_dump_json(),
        code=lambda wildcards: code_fingerprint(code.training_modules(run(wildcards).training)),
        root=output_root,
        folder=str(LAYOUT.experiment("{experiment}", "{split}", "{seed}")),
    shell:
        "exec {resources.launcher} -m pipeline_lib train --specification {params.specification:q}"
        " --root {params.root:q} --output {params.folder:q} &> {log:q}"


use rule train_teacher as train_baseline with:
    wildcard_constraints:
        experiment=one_of(PLAN.names_of_stage("train_baseline")),
    priority: 0


use rule train_teacher as pretrain with:
    wildcard_constraints:
        experiment=one_of(PLAN.names_of_stage("pretrain")),


use rule train_teacher as distill with:
    wildcard_constraints:
        experiment=one_of(PLAN.names_of_stage("distill")),


use rule train_teacher as finetune with:
    wildcard_constraints:
        experiment=one_of(PLAN.names_of_stage("finetune")),

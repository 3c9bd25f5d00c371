"""One self-contained HTML page per target."""


rule write_report:
    input:
        summaries=lambda wildcards: JOBS.report_summaries(wildcards, checkpoints),
        tables=ancient(JOBS.report_tables),
        results=JOBS.report_inputs,
    output:
        LAYOUT.report("{target}"),
    params:
        specification=JOBS.report,
        code=code_fingerprint(stages.REPORT),
    wildcard_constraints:
        target=JOBS.one_of(PLAN.report_names),
    threads: 1
    log:
        LAYOUT.log("report", "{target}"),
    conda:
        "../envs/report.yaml"
    shell:
        "exec {PYTHON:q} -m pipeline_lib report --specification {params.specification:q}"
        " --root {ROOT:q} --output {output:q} &> {log:q}"

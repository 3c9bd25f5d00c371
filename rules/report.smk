"""One self-contained HTML page per target."""


rule write_report:
    input:
        summaries=lambda wildcards: JOBS.report_summaries(wildcards, checkpoints),
        tables=ancient(JOBS.report_tables),
        results=JOBS.report_inputs,
    output:
        LAYOUT.report("{target}"),
    log:
        LAYOUT.log("report", "{target}"),
    wildcard_constraints:
        target=JOBS.one_of(PLAN.report_names),
    conda:
        "../envs/report.yaml"
    threads: 1
    params:
        specification=JOBS.report,
        root=JOBS.root,
        code=JOBS.report_code,
    shell:
        "exec python -m pipeline_lib report --specification {params.specification:q}"
        " --root {params.root:q} --output {output:q} &> {log:q}"

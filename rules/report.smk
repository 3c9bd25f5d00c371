"""One self-contained HTML page per target."""


rule write_report:
    input:
        summaries=report_summaries,
        tables=ancient(report_tables),
        results=lambda wildcards: PLAN.report_inputs(wildcards.target),
    output:
        LAYOUT.report("{target}"),
    log:
        LAYOUT.log("report", "{target}"),
    wildcard_constraints:
        target=one_of(PLAN.report_names),
    conda:
        "../envs/report.yaml"
    params:
        specification=lambda wildcards: PLAN.report(wildcards.target).model_dump_json(exclude_defaults=True),
        root=output_root,
        code=code_fingerprint(code.REPORT),
    shell:
        "exec python -m pipeline_lib report --specification {params.specification:q}"
        " --root {params.root:q} --output {output:q} &> {log:q}"

"""Optional: fetch videos from mirrors, archives or YouTube. No other stage asks for it."""


rule fetch_videos:
    output:
        LAYOUT.download_summary("{source}"),
    log:
        LAYOUT.log("download", "{source}"),
    wildcard_constraints:
        source=one_of(CONFIGURATION.downloads),
    conda:
        "../envs/download.yaml"
    # There is no fingerprint of the code: an edit must not fetch videos again.
    params:
        specification=lambda wildcards: PLAN.download(wildcards.source).model_dump_json(),
    shell:
        "exec python -m pipeline_lib download --specification {params.specification:q} --output {output:q} &> {log:q}"

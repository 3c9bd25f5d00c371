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
    # No fingerprint of the code: what has been fetched stays fetched, and the ledger beside the summary knows it.
    params:
        specification=lambda wildcards: PLAN.download(wildcards.source).model_dump_json(),
    shell:
        "exec python -m pipeline_lib download --specification {params.specification:q} --output {output:q} &> {log:q}"

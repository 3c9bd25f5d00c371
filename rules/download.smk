"""Optional: fetch videos from mirrors, archives or YouTube. No other stage asks for it."""


rule fetch_videos:
    output:
        LAYOUT.download_summary("{source}"),
    log:
        LAYOUT.log("download", "{source}"),
    wildcard_constraints:
        source=JOBS.one_of(PLAN.configuration.downloads),
    conda:
        "../envs/download.yaml"
    threads: 1
    # No fingerprint of the code: what has been fetched stays fetched, and the ledger beside the summary knows it.
    params:
        specification=JOBS.download,
    shell:
        "exec python -m pipeline_lib download --specification {params.specification:q} --output {output:q} &> {log:q}"

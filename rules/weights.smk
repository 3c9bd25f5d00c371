"""Public weights that an experiment starts from: they are fetched and converted, or a message says where to put the file."""


rule import_weights:
    output:
        LAYOUT.imported("{source}"),
    log:
        LAYOUT.log("weights", "{source}"),
    wildcard_constraints:
        source=r"(torchvision|slim|pyslowfast|maclr|kylemin)/\w+",
    conda:
        "../envs/training.yaml"
    params:
        root=output_root,
    shell:
        "exec python -m pipeline_lib weights import {wildcards.source:q} --root {params.root:q} --out {output:q}"
        " &> {log:q}"

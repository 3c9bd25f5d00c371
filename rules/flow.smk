"""Motion (flow, flow edges, frame difference) beside the frames."""


rule extract_motion:
    input:
        frames=LAYOUT.frames("{dataset}", "{frame_format}", "{shard}"),
    output:
        LAYOUT.motion("{dataset}", "{frame_format}", "{motion}", "{shard}"),
    params:
        specification=JOBS.motion,
        code=JOBS.motion_code,
    threads: 1
    log:
        LAYOUT.log("motion", "{dataset}", "{frame_format}", "{motion}", "{shard}"),
    conda:
        "../envs/flow.yaml"
    shell:
        "exec {PYTHON:q} -m pipeline_lib extract-motion --specification {params.specification:q}"
        " --frames {input.frames:q} --output {output:q} --threads {threads} &> {log:q}"

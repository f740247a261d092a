# paper/released.yaml --> [checkpoint]: published models, in the place of train.smk's trainings.


rule fetch:
    """Fetch a published model; a download that was cut off resumes."""
    output:
        weights=LAYOUT.training("{trained}") / "last.safetensors",
        card=LAYOUT.training("{trained}") / "last.json",
    log:
        LAYOUT.log("fetch", "{trained}"),
    wildcard_constraints:
        trained=TRAINED,
    priority: 1000
    # compute nodes of clusters rarely have a network
    localrule: True
    conda:
        "../envs/registers.yaml"
    params:
        identity=published_identity,
    shell:
        "registers fetch {wildcards.trained} > {log} 2>&1"


rule add_registers:
    """Give a published model that has none test-time registers, without training."""
    input:
        source=source_of_published,
        data=LAYOUT.manifest("eval"),
    output:
        weights=LAYOUT.training("{trained}") / "last.safetensors",
        card=LAYOUT.training("{trained}") / "last.json",
    log:
        LAYOUT.log("fetch", "{trained}"),
    wildcard_constraints:
        trained=rf"{TRAINED}-tt",
    priority: 1000
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
        mem_mb=add_mb,
        runtime=add_minutes,
    params:
        identity=published_identity,
        size=SETTINGS.image_size,
        code=code_digest("registers.released.added"),
    shell:
        "registers fetch {wildcards.trained} > {log} 2>&1"

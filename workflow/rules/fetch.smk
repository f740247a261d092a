# paper/released.yaml --> [checkpoint]: published models, in the place of train.smk's trainings.


rule fetch:
    """Fetch a published model; a download that was cut off resumes."""
    output:
        weights=LAYOUT.training("{trained}") / "last.safetensors",
        card=LAYOUT.training("{trained}") / "last.json",
    log:
        LAYOUT.log("fetch", "{trained}"),
    wildcard_constraints:
        trained=BACKBONE,
    priority: 1000
    # compute nodes of clusters rarely have a network
    localrule: True
    conda:
        "../envs/registers.yaml"
    params:
        identity=published_identity,
    shell:
        "registers fetch {wildcards.trained} > {log} 2>&1"

# params --> data: one manifest for each role a data set plays. The embedded world is drawn here; real sets are listed.


rule world:
    output:
        directory(f"{RUN}/data/world-{{split}}"),
    params:
        world=asdict(SETTINGS.world),
    log:
        f"{RUN}/logs/world/{{split}}.log",
    benchmark:
        f"{RUN}/benchmarks/world/{{split}}.tsv"
    conda:
        "../envs/registers.yaml"
    wildcard_constraints:
        split="train|val|test",
    threads: SETTINGS.threads
    shell:
        "registers world {wildcards.split} > {log} 2>&1"


rule data:
    input:
        lambda wildcards: (
            expand(f"{RUN}/data/world-{{split}}", split=["train", "val", "test"])
            if getattr(SETTINGS.data, wildcards.role) == "world"
            else []
        ),
    output:
        f"{RUN}/data/{{role}}.json",
    params:
        source=lambda wildcards: getattr(SETTINGS.data, wildcards.role),
    log:
        f"{RUN}/logs/data/{{role}}.log",
    benchmark:
        f"{RUN}/benchmarks/data/{{role}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    shell:
        "registers data {wildcards.role} --threads {threads} > {log} 2>&1"


rule download:
    output:
        touch(SETTINGS.data_root + "/{name}/.complete"),
    log:
        f"{RUN}/logs/download/{{name}}.log",
    conda:
        "../envs/registers.yaml"
    localrule: True
    shell:
        "registers download {wildcards.name} 2>&1 | tee {log}"

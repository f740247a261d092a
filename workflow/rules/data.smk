# params --> data: one manifest for each role a data set plays. The embedded world is drawn here; real sets are listed.


rule world:
    output:
        f"{RUN}/data/world-{{split}}/world.json",
    log:
        f"{RUN}/logs/world/{{split}}.log",
    benchmark:
        f"{RUN}/benchmarks/world/{{split}}.tsv"
    wildcard_constraints:
        split="train|val|test",
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    params:
        world=asdict(SETTINGS.world),
    shell:
        "registers world {wildcards.split} > {log} 2>&1"


rule data:
    input:
        source_of_role,
    output:
        f"{RUN}/data/{{role}}.json",
    log:
        f"{RUN}/logs/data/{{role}}.log",
    benchmark:
        f"{RUN}/benchmarks/data/{{role}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    params:
        source=content_of_role,
    shell:
        "registers data {wildcards.role} --threads {threads} > {log} 2>&1"


rule download:
    output:
        touch(f"{SETTINGS.data_root}/{{name}}.complete"),
    log:
        f"{RUN}/logs/download/{{name}}.log",
    wildcard_constraints:
        name="|".join(DOWNLOADABLE),
    localrule: True
    conda:
        "../envs/registers.yaml"
    shell:
        "registers download {wildcards.name} > {log} 2>&1"

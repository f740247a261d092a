# params --> data: one manifest for each role a data set plays. The embedded world is drawn here; real sets are listed.


rule data:
    output:
        f"{RUN}/data/{{role}}.json",
    params:
        source=lambda wildcards: getattr(SETTINGS.data, wildcards.role),
        world=lambda wildcards: asdict(SETTINGS.world),
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

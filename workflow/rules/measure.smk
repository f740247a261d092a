# [token bank], [checkpoint] --> [measurements]: one question a rule, one csv a backbone.


rule norms:
    input:
        f"{RUN}/banks/{{backbone}}/index.json",
    output:
        f"{RUN}/measurements/norms/{{backbone}}.csv",
    log:
        f"{RUN}/logs/norms/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/norms/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    params:
        cutoff=SETTINGS.cutoff,
    shell:
        "registers norms {wildcards.backbone} --threads {threads} > {log} 2>&1"


rule positions:
    input:
        f"{RUN}/banks/{{backbone}}/index.json",
    output:
        f"{RUN}/measurements/positions/{{backbone}}.csv",
    log:
        f"{RUN}/logs/positions/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/positions/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    params:
        cutoff=SETTINGS.cutoff,
    shell:
        "registers positions {wildcards.backbone} > {log} 2>&1"


rule token_class:
    input:
        f"{RUN}/banks/{{backbone}}/index.json",
    output:
        f"{RUN}/measurements/token_class/{{backbone}}.csv",
    log:
        f"{RUN}/logs/token_class/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/token_class/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    params:
        cutoff=SETTINGS.cutoff,
        probes=asdict(SETTINGS.probes),
    shell:
        "registers token_class {wildcards.backbone} > {log} 2>&1"


rule neighbours:
    input:
        f"{RUN}/banks/{{backbone}}/index.json",
    output:
        f"{RUN}/measurements/neighbours/{{backbone}}.csv",
    log:
        f"{RUN}/logs/neighbours/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/neighbours/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    params:
        cutoff=SETTINGS.cutoff,
    shell:
        "registers neighbours {wildcards.backbone} > {log} 2>&1"


rule local:
    input:
        bank=f"{RUN}/banks/{{backbone}}/index.json",
        data=f"{RUN}/data/eval.json",
    output:
        f"{RUN}/measurements/local/{{backbone}}.csv",
    log:
        f"{RUN}/logs/local/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/local/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    params:
        cutoff=SETTINGS.cutoff,
    shell:
        "registers local {wildcards.backbone} --threads {threads} > {log} 2>&1"


rule linear:
    input:
        weights=checkpoint_of,
        data=f"{RUN}/data/eval.json",
    output:
        f"{RUN}/measurements/linear/{{backbone}}.csv",
    log:
        f"{RUN}/logs/linear/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/linear/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
    params:
        linear=asdict(SETTINGS.linear),
    shell:
        "registers linear {wildcards.backbone} --threads {threads} > {log} 2>&1"


rule dense:
    input:
        weights=checkpoint_of,
        segmentation=f"{RUN}/data/segmentation.json",
        depth=f"{RUN}/data/depth.json",
    output:
        f"{RUN}/measurements/segmentation/{{backbone}}.csv",
        f"{RUN}/measurements/depth/{{backbone}}.csv",
        f"{RUN}/pictures/segmentation/{{backbone}}.npz",
        f"{RUN}/pictures/depth/{{backbone}}.npz",
    log:
        f"{RUN}/logs/dense/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/dense/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
    params:
        segmentation=asdict(SETTINGS.segmentation),
        depth=asdict(SETTINGS.depth),
    shell:
        "registers dense {wildcards.backbone} --threads {threads} > {log} 2>&1"


rule discovery:
    input:
        weights=checkpoint_of,
        data=f"{RUN}/data/discovery.json",
    output:
        f"{RUN}/measurements/discovery/{{backbone}}.csv",
        f"{RUN}/pictures/discovery/{{backbone}}.npz",
    log:
        f"{RUN}/logs/discovery/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/discovery/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
    params:
        discovery=asdict(SETTINGS.discovery),
    shell:
        "registers discovery {wildcards.backbone} --threads {threads} > {log} 2>&1"


rule zeroshot:
    input:
        weights=checkpoint_of,
        data=f"{RUN}/data/eval.json",
    output:
        f"{RUN}/measurements/zeroshot/{{backbone}}.csv",
    log:
        f"{RUN}/logs/zeroshot/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/zeroshot/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
    params:
        words=[digest(given) for given in asdict(SETTINGS.zeroshot).values()],
    shell:
        "registers zeroshot {wildcards.backbone} --threads {threads} > {log} 2>&1"


# exact answers that need no backbone


rule exact:
    output:
        f"{RUN}/measurements/{{question}}.csv",
    log:
        f"{RUN}/logs/{{question}}.log",
    wildcard_constraints:
        question="cost|interpolation",
    conda:
        "../envs/registers.yaml"
    params:
        sizes={name: asdict(size) for name, size in SETTINGS.sizes.items()},
        image=SETTINGS.image_size,
    shell:
        "registers {wildcards.question} > {log} 2>&1"

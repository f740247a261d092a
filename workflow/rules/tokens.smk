# [checkpoint] --> [token bank]: one forward pass over the images; everything that looks at tokens reads the bank.


rule tokens:
    input:
        weights=checkpoint_of,
        data=f"{RUN}/data/eval.json",
    output:
        f"{RUN}/banks/{{backbone}}/index.json",
    log:
        f"{RUN}/logs/tokens/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/tokens/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
    params:
        bank=asdict(SETTINGS.bank),
    shell:
        "registers tokens {wildcards.backbone} --threads {threads} > {log} 2>&1"


rule maps:
    input:
        weights=checkpoint_of,
        data=f"{RUN}/data/eval.json",
    output:
        f"{RUN}/maps/{{backbone}}.npz",
    log:
        f"{RUN}/logs/maps/{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/maps/{{backbone}}.tsv"
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
    params:
        maps=asdict(SETTINGS.maps),
    shell:
        "registers maps {wildcards.backbone} --threads {threads} > {log} 2>&1"

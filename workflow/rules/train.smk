# data --> [checkpoint]: one job a backbone. A killed job goes on from its last saved step when it is started again.


rule train:
    input:
        training_data,
    output:
        weights=f"{RUN}/checkpoints/{{trained}}/last.safetensors",
        facts=f"{RUN}/checkpoints/{{trained}}/last.json",
        history=f"{RUN}/checkpoints/{{trained}}/history.csv",
        on_the_way=[
            f"{RUN}/checkpoints/{{trained}}/at{round(100 * f):03d}.{ending}"
            for f in SETTINGS.fractions
            for ending in ("safetensors", "json")
        ],
    log:
        f"{RUN}/logs/train/{{trained}}.log",
    benchmark:
        f"{RUN}/benchmarks/train/{{trained}}.tsv"
    priority: 1000
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
    params:
        recipe=recipe_of,
    shell:
        "registers train {wildcards.trained} --threads {threads} > {log} 2>&1"

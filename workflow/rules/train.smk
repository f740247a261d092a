# data --> [checkpoint]: one job a backbone. A killed job goes on from its last saved step when it is started again.
# Two rules of one shape: the longest trainings start first, so that no core waits for one of them at the end.

for effort, trained, priority in [
    ("train_large", LARGE, 2000),
    ("train", rf"(?!{LARGE}){BACKBONE}", 1000),
]:

    rule:
        name:
            effort
        input:
            training_data,
        output:
            weights=f"{RUN}/checkpoints/{{trained}}/last.safetensors",
            facts=f"{RUN}/checkpoints/{{trained}}/last.json",
            history=f"{RUN}/checkpoints/{{trained}}/history.csv",
            on_the_way=CHECKPOINTS_ON_THE_WAY,
        log:
            f"{RUN}/logs/train/{{trained}}.log",
        benchmark:
            f"{RUN}/benchmarks/train/{{trained}}.tsv"
        wildcard_constraints:
            trained=trained,
        priority: priority
        conda:
            "../envs/registers.yaml"
        threads: SETTINGS.threads
        resources:
            gpu=GPU,
        params:
            recipe=recipe_of,
        shell:
            "registers train {wildcards.trained} --threads {threads} > {log} 2>&1"

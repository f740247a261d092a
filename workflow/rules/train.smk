# data --> [checkpoint]: one job per backbone. A killed job resumes from its last saved step.
# Two rules of one shape: the longest trainings start first, so that no core waits for one.

CHECKPOINTS_ON_THE_WAY = [
    LAYOUT.training("{trained}") / f"{checkpoint_name(round(100 * fraction))}.{ending}"
    for fraction in SETTINGS.fractions
    for ending in ("safetensors", "json")
]

for effort, trained, priority in [
    ("train_large", LARGE, 2000),
    ("train", rf"(?!{LARGE}){TRAINED}", 1000),
]:

    rule:
        """Train a backbone; a killed training resumes from its last saved step."""
        name:
            effort
        input:
            training_data,
        output:
            weights=LAYOUT.training("{trained}") / "last.safetensors",
            card=LAYOUT.training("{trained}") / "last.json",
            history=LAYOUT.training("{trained}") / "history.csv",
            on_the_way=CHECKPOINTS_ON_THE_WAY,
        log:
            LAYOUT.log("train", "{trained}"),
        benchmark:
            LAYOUT.benchmark("train", "{trained}")
        wildcard_constraints:
            trained=trained,
        priority: priority
        conda:
            "../envs/registers.yaml"
        threads: SETTINGS.threads
        resources:
            gpu=GPU,
            mem_mb=train_mb,
            runtime=train_minutes,
        params:
            identity=identity_of,
            code=code_of_training,
        shell:
            # --set-resources train:gpu=8 is one process for each GPU, of one node
            "processes={resources.gpu};"
            ' if [ "$processes" -gt 1 ]; then'
            ' run="torchrun --standalone --nproc-per-node $processes -m registers.cli";'
            " else run=registers; fi;"
            " $run train {wildcards.trained} --threads {threads} > {log} 2>&1"

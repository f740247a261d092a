# The emergence study: every run of the sweep in workflow/scales/emergence.yaml, and what they say together.
# snakemake --cores all study        (a killed run goes on from its last saved step; --keep-going past a failed one)
from dataclasses import asdict

from registers.study.regime import study as read_study
from registers.settings.load import read_yaml

STUDY = read_study(
    read_yaml(Path(workflow.basedir) / "workflow/scales/emergence.yaml")["study"]
)
RUNS = [f"{variant}-r{r}-s{seed}" for variant, r, seed in STUDY.runs()]
EMERGENCE = "results/emergence"


rule study:
    input:
        expand(f"{EMERGENCE}/runs/{{run}}/run.json", run=RUNS),
        "reports/emergence.md",


rule study_page:
    input:
        expand(f"{EMERGENCE}/runs/{{run}}/run.json", run=RUNS),
    output:
        "reports/emergence.md",
        "reports/emergence/results.csv",
        expand("reports/emergence/{figure}.png", figure=["landscape", "course", "maps"]),
    log:
        f"{EMERGENCE}/logs/study.log",
    conda:
        "../envs/registers.yaml"
    shell:
        "python -m registers.study summary > {log} 2>&1"


rule study_run:
    output:
        multiext(
            f"{EMERGENCE}/runs/{{variant}}-r{{registers}}-s{{seed}}/",
            "run.json",
            "history.csv",
            "net.pt",
        ),
    log:
        f"{EMERGENCE}/logs/{{variant}}-r{{registers}}-s{{seed}}.log",
    wildcard_constraints:
        variant=r"[a-z0-9-]+",
        registers=r"\d+",
        seed=r"\d+",
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
    params:
        # all that a run depends on: a new variant trains no other one again
        regime=lambda wildcards: json.dumps(asdict(STUDY.regime(wildcards.variant))),
        uri=SETTINGS.mlflow_uri,
    shell:
        "python -m registers.study --mlflow-uri {params.uri} run {wildcards.variant}-r{wildcards.registers}-s{wildcards.seed}"
        " --threads {threads} > {log} 2>&1"

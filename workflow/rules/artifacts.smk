# [measurements] --> figures and tables: paper/artifacts.yaml names the inputs of each, one rule draws any of them.


rule figure:
    input:
        unpack(inputs_of),
        source=source_of,
    output:
        multiext("reports/figures/{id}", ".png", ".pdf", ".csv", ".txt"),
    log:
        f"{RUN}/logs/figures/{{id}}.log",
    wildcard_constraints:
        id=r"fig\d\d",
    conda:
        "../envs/registers.yaml"
    shell:
        "registers draw {wildcards.id} > {log} 2>&1"


rule table:
    input:
        unpack(inputs_of),
        source=source_of,
    output:
        multiext("reports/tables/{id}", ".md", ".csv", ".txt"),
    log:
        f"{RUN}/logs/tables/{{id}}.log",
    wildcard_constraints:
        id=r"table\d",
    conda:
        "../envs/registers.yaml"
    shell:
        "registers draw {wildcards.id} > {log} 2>&1"


# beyond the paper: what one backbone says of single photos, `snakemake reports/pictures/discovery-dinov2-r0-s0.png`
rule picture:
    input:
        arrays=f"{RUN}/pictures/{{question}}/{{backbone}}.npz",
        source=os.path.relpath(Path(workflow.basedir) / "src/registers/figures/paint/predictions.py"),
    output:
        multiext("reports/pictures/{question}-{backbone}", ".png", ".pdf", ".txt"),
    log:
        f"{RUN}/logs/pictures/{{question}}-{{backbone}}.log",
    wildcard_constraints:
        question="segmentation|depth|discovery",
    conda:
        "../envs/registers.yaml"
    shell:
        "registers picture {wildcards.question} {wildcards.backbone} > {log} 2>&1"

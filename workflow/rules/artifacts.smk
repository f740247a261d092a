# [rows, arrays] --> figures and tables: paper/artifacts.yaml names the inputs of each, and one rule
# draws any. `snakemake --report report.html` shows the first file of each, with title and caption.

for name, pattern, shown, others in [
    ("figure", r"fig\d\d", "png", ["pdf", "dark.png", "csv", "txt"]),
    ("table", r"table\d", "csv", ["md", "txt"]),
]:

    rule:
        """Draw a figure or write a table from what was measured."""
        name:
            name
        input:
            unpack(inputs_of),
        output:
            report(
                LAYOUT.drawing(f"{name}s", "{id}", shown),
                caption="../report/artifact.rst",
                category=f"{name.capitalize()}s",
                labels={"paper": "{id}"},
            ),
            [LAYOUT.drawing(f"{name}s", "{id}", ending) for ending in others],
        log:
            LAYOUT.log(f"{name}s", "{id}"),
        benchmark:
            LAYOUT.benchmark(f"{name}s", "{id}")
        wildcard_constraints:
            id=pattern,
        conda:
            "../envs/registers.yaml"
        resources:
            mem_mb=SMALL_MB,
            runtime=SMALL_MINUTES,
        params:
            code=code_of_artifact,
            title=lambda wildcards: ARTIFACTS[wildcards.id].title,
            caption=lambda wildcards: ARTIFACTS[wildcards.id].caption,
        shell:
            "registers draw {wildcards.id} > {log} 2>&1"


# beyond the paper: a backbone's predictions on single images,
# `snakemake --cores all reports/laptop/pictures/depth-dinov2-r0-s0.png`
rule picture:
    """Draw a backbone's predictions on single images."""
    input:
        LAYOUT.arrays("{question}", "{backbone}"),
    output:
        multiext(
            str(LAYOUT.drawing("pictures", "{question}-{backbone}")),
            ".png",
            ".pdf",
            ".dark.png",
            ".txt",
        ),
    log:
        LAYOUT.log("pictures", "{question}-{backbone}"),
    benchmark:
        LAYOUT.benchmark("pictures", "{question}-{backbone}")
    wildcard_constraints:
        question="|".join(artifacts.PICTURED),
    conda:
        "../envs/registers.yaml"
    resources:
        mem_mb=SMALL_MB,
        runtime=SMALL_MINUTES,
    params:
        code=code_digest("registers.figures.paint.predictions"),
    shell:
        "registers draw {wildcards.question}-{wildcards.backbone} > {log} 2>&1"


# `snakemake --cores all fig07 table1`: one artifact by its name in the paper
for artifact in ARTIFACTS.values():

    rule:
        name:
            artifact.id
        input:
            artifact.outputs(LAYOUT),

    workflow.get_rule(artifact.id).docstring = artifact.title  # for snakemake --list

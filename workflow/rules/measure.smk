# [token bank], [checkpoint] --> [measurements]: every question of src/registers/questions.py.
# Two rules of one shape: some questions also leave small arrays for pictures.

ROWS = {"rows": LAYOUT.measurement("{question}", "{backbone}")}
ARRAYS = {"arrays": LAYOUT.arrays("{question}", "{backbone}")}

for name, outputs, leaves_arrays in [
    ("measure", ROWS, False),
    ("measure_with_arrays", ROWS | ARRAYS, True),
]:

    rule:
        """Ask a question of a backbone or of its token bank."""
        name:
            name
        input:
            subject=subject_of,
            data=data_of_question,
        output:
            **outputs,
        log:
            LAYOUT.log("{question}", "{backbone}"),
        benchmark:
            LAYOUT.benchmark("{question}", "{backbone}")
        wildcard_constraints:
            question="|".join(
                questions.names("bank", leaves_arrays)
                + questions.names("checkpoint", leaves_arrays)
            ),
        conda:
            "../envs/registers.yaml"
        threads: SETTINGS.threads
        resources:
            gpu=lambda wildcards: GPU * QUESTIONS[wildcards.question].gpu,
            mem_mb=measure_mb,
            runtime=measure_minutes,
        params:
            settings=settings_of_question,
            code=code_of_question,
        shell:
            "registers measure {wildcards.question} {wildcards.backbone} --threads {threads}"
            " > {log} 2>&1"


rule exact:
    """Answer a question that needs no backbone (Figs. 11 and 12)."""
    output:
        LAYOUT.measurement("{question}"),
    log:
        LAYOUT.log("{question}"),
    benchmark:
        LAYOUT.benchmark("{question}")
    wildcard_constraints:
        question="|".join(questions.names("nothing")),
    conda:
        "../envs/registers.yaml"
    resources:
        mem_mb=SMALL_MB,
        runtime=SMALL_MINUTES,
    params:
        settings=settings_of_question,
        code=code_of_question,
    shell:
        "registers measure {wildcards.question} > {log} 2>&1"

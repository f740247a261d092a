# figures, tables, claims --> the regenerated paper, one self-contained page.


rule report:
    """Write the regenerated paper, with claims.json and the main numbers."""
    input:
        drawn=[
            path
            for artifact in ARTIFACTS.values()
            for path in artifact.outputs(LAYOUT)
        ],
        pictures=[
            path
            for picture in artifacts.pictures(SETTINGS)
            for path in picture.outputs(LAYOUT)
        ],
        measurements=artifacts.evidence(SETTINGS),
        histories=[
            LAYOUT.history(id)
            for id in artifacts.trained(SETTINGS)
            if not SETTINGS.models
        ],
        words=project_files(
            "paper/artifacts.yaml",
            "paper/claims.yaml",
            "src/registers/report.html.j2",
        ),
    output:
        report(LAYOUT.page, caption="../report/paper.rst"),
        report(
            LAYOUT.claims.with_suffix(".png"),
            caption="../report/claims.rst",
            category="Claims",
        ),
        [
            LAYOUT.claims.with_suffix(f".{ending}")
            for ending in ("pdf", "dark.png", "csv", "json")
        ],
        LAYOUT.handout,
        [] if SETTINGS.models else [LAYOUT.training_curves],
        [LAYOUT.metrics(name) for name in (*headlines.COMPARED, "claims")],
    log:
        LAYOUT.log("report"),
    benchmark:
        LAYOUT.benchmark("report")
    conda:
        "../envs/registers.yaml"
    resources:
        mem_mb=SMALL_MB,
        runtime=SMALL_MINUTES,
    params:
        code=code_digest("registers.report", "registers.figures.training_curves"),
    shell:
        "registers report > {log} 2>&1"


onsuccess:
    shell("registers deliver")


onerror:
    shell("registers deliver")

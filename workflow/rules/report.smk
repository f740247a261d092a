# figures, tables, claims --> the regenerated paper, one self-contained page.


rule report:
    input:
        drawn=[path for artifact in ARTIFACTS.values() for path in artifact.outputs],
        pictures=[
            p for picture in artifacts.pictures(SETTINGS) for p in picture.outputs
        ],
        measurements=artifacts.evidence(SETTINGS),
        words=words_of_report(),
    output:
        report("reports/paper.html", caption="../report/paper.rst"),
        "reports/claims.json",
        "reports/metrics.json",
    log:
        f"{RUN}/logs/report.log",
    conda:
        "../envs/registers.yaml"
    shell:
        "registers report > {log} 2>&1"


onsuccess:
    shell("registers deliver")


onerror:
    shell("registers deliver")

# [checkpoint] --> [token bank]: one forward pass over the evaluation images.


rule tokens:
    """Write the token bank of a backbone: one pass over the evaluation images."""
    input:
        weights=checkpoint_of,
        data=LAYOUT.manifest("eval"),
    output:
        LAYOUT.bank("{backbone}") / "index.json",
    log:
        LAYOUT.log("tokens", "{backbone}"),
    benchmark:
        LAYOUT.benchmark("tokens", "{backbone}")
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        gpu=GPU,
        mem_mb=measure_mb,
        runtime=measure_minutes,
    params:
        settings=json.dumps(bank_identity(SETTINGS)),
        code=f'{code_digest("registers.tokens")} {reader_code("eval")}',
    shell:
        "registers tokens {wildcards.backbone} --threads {threads} > {log} 2>&1"

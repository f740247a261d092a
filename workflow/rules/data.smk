# params --> data: one manifest for each role. The built-in world is drawn, real sets are listed.


rule world:
    """Draw one split of the built-in data set."""
    output:
        LAYOUT.world("{split}") / "world.json",
    log:
        LAYOUT.log("world", "{split}"),
    benchmark:
        LAYOUT.benchmark("world", "{split}")
    wildcard_constraints:
        split="train|val|test",
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        mem_mb=SMALL_MB,
        runtime=SMALL_MINUTES,
    params:
        settings=lambda wildcards: json.dumps(world_identity(SETTINGS, wildcards.split)),
        code=code_digest("registers.world.dataset"),
    shell:
        "registers world {wildcards.split} > {log} 2>&1"


rule data:
    """List the data set of a role and write its manifest."""
    input:
        source_of_role,
    output:
        LAYOUT.manifest("{role}"),
    log:
        LAYOUT.log("data", "{role}"),
    benchmark:
        LAYOUT.benchmark("data", "{role}")
    conda:
        "../envs/registers.yaml"
    threads: SETTINGS.threads
    resources:
        mem_mb=2 * SMALL_MB,
        # listing and fingerprinting millions of files on a network file system
        runtime=480,
    params:
        state=state_of_role,
        code=lambda wildcards: reader_code(wildcards.role),
    shell:
        "registers data {wildcards.role} > {log} 2>&1"


rule download:
    """Download a public data set below data.root."""
    output:
        touch(f"{SETTINGS.data_root}/{{name}}.complete"),
    log:
        LAYOUT.log("download", "{name}"),
    wildcard_constraints:
        name="|".join(DOWNLOADABLE),
    localrule: True
    conda:
        "../envs/registers.yaml"
    shell:
        "registers download {wildcards.name} > {log} 2>&1"

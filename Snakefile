# "Vision Transformers Need Registers" (Darcet et al., ICLR 2024), from params.yaml to reports/paper.html.
#
#   params --> data --> train --> [checkpoint] --> tokens --> [token bank] --> measure --> [rows] --> draw --> report
#
# snakemake --cores all                            the whole paper at the scale that params.yaml names
# snakemake --cores all reports/figures/fig07.png  one figure
# snakemake --cores all --config scale=smoke       another scale, just this once
# snakemake --cores all study                      the emergence study: reports/emergence.md
from snakemake.utils import min_version

min_version("9.0")


configfile: workflow.source_path("params.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/tokens.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/artifacts.smk"
include: "workflow/rules/report.smk"


module study:
    snakefile:
        "workflow/study/Snakefile"
    config:
        config


use rule * from study


rule all:
    """The whole paper, at the scale that params.yaml names."""
    default_target: True
    input:
        "reports/paper.html",

# "Vision Transformers Need Registers" (Darcet et al., ICLR 2024): from params.yaml to the report.
#
#   params --> data --> train --> [checkpoint] --> tokens --> [token bank] --> measure --> [rows]
#     --> figures, tables, claims --> reports/<run>/paper.html
#
# snakemake --cores all                            the whole paper at the scale that params.yaml names
# snakemake --cores all fig07                      one figure
# snakemake --cores all --config scale=smoke       another scale, just this once
# snakemake --cores all study                      the emergence study: reports/emergence.md
import sys
from pathlib import Path

from snakemake.utils import min_version

from registers.settings.errors import ConfigError
from registers.settings.read import read_yaml

min_version("9.0")

# the folder's own params.yaml (snakemake --directory), or else that of this checkout
PARAMS = Path("params.yaml")
if not PARAMS.exists():
    PARAMS = Path(workflow.source_path("params.yaml"))
try:
    read_yaml(PARAMS)  # in one line, what Snakemake would take a traceback for
except ConfigError as error:
    sys.exit(f"registers: {error}")


configfile: str(PARAMS)


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"


if SETTINGS.models:

    include: "workflow/rules/fetch.smk"

else:

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
        LAYOUT.page,

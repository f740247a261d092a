# Settings, checked before any job starts, and the look-ups that the rules share.
import json
import logging
import os
import sys
from pathlib import Path

from snakemake.io import IOFile

from registers import (
    artifacts,
    clock,
    headlines,
    questions,
    records,
    run_lock,
    run_log,
    stale,
)
from registers.digest import digest as code_digest
from registers.exact import demands
from registers.layout import checkpoint_name
from registers.measure import values
from registers.questions import QUESTIONS
from registers.registry import METHODS
from registers.released import lock as released_lock
from registers.released import start as released_start
from registers.settings import released
from registers.settings.backbone_id import BackboneId
from registers.settings.data import ANNOTATED_ROLES, DOWNLOADABLE, IMAGE_ROLES
from registers.settings.errors import ConfigError
from registers.settings.identity import (
    bank_identity,
    training_identity,
    words_digest,
    world_identity,
)
from registers.settings.load import load_settings
from registers.settings.paths import check_paths, data_path

try:
    SETTINGS = load_settings(dict(config))
except ConfigError as error:
    sys.exit(f"registers: {error}")

# a run that was killed leaves Snakemake's lock behind; whoever starts the next one need not know
if workflow.is_main_process and (line := run_lock.begin()):
    print(f"registers: {line}", file=sys.stderr)

LAYOUT = SETTINGS.layout
if workflow.is_main_process:
    logging.getLogger("snakemake.logging").addFilter(run_log.Shortened())
    records.restore(LAYOUT)  # a run that was pulled or checked out brings its own
ARTIFACTS = artifacts.available(SETTINGS)
PUBLISHED = map(BackboneId.parse, released.catalogue() if SETTINGS.models else [])
METHOD = "|".join(SETTINGS.recipes)
SIZE = "|".join(sorted({*SETTINGS.sizes, *(id.size for id in PUBLISHED if id.size)}))
TRAINED = rf"({METHOD})(-({SIZE}))?-r\d+-s\d+(-noaa)?"
BACKBONE = rf"{TRAINED}(-tt)?"  # with test-time registers
LARGE = r"[a-z0-9]+-(huge|giant)-r\d+-s\d+(-noaa)?"
GPU = int(clock.has_gpu(SETTINGS.device))

# every job runs the `registers` command of this environment, with these very settings
os.environ.update(
    REGISTERS_PARAMS=json.dumps(dict(config)),
    PATH=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    ),
)


onstart:
    # Snakemake limits jobs to 100 a second by looking again a second after every look: each job
    # that ends adds one more look a second, for good: a third of a core after 200 jobs.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None
    # not before: a dry run of a scale needs none of its data
    from registers.readers.catalogue import check_words

    try:
        check_paths(SETTINGS)
        check_words(SETTINGS)
        if SETTINGS.models:
            print(released_start.plan(SETTINGS), file=sys.stderr)
            released_start.check(SETTINGS)
    except ConfigError as error:
        sys.exit(f"registers: {error}")
    if workflow.is_main_process:
        run_log.follow(workflow, SETTINGS)


wildcard_constraints:
    backbone=rf"{BACKBONE}(-at\d\d\d)?",
    trained=BACKBONE,
    role="|".join([*IMAGE_ROLES, *ANNOTATED_ROLES]),
    question="|".join(QUESTIONS),


# --- resources: upper bounds for any executor; `--set-resources RULE:NAME=VALUE` changes them

SMALL_MB = 3000  # a job without a backbone: pandas, matplotlib, one image at a time
SMALL_MINUTES = 30


def train_mb(wildcards, attempt):
    """Memory of a training; more with every attempt."""
    id = BackboneId.parse(wildcards.trained)
    return attempt * demands.train_mb(SETTINGS, id, bool(GPU))


def train_minutes(wildcards):
    """Time of a training on one GPU or on the CPU; one that is killed resumes."""
    return demands.train_minutes(
        SETTINGS, BackboneId.parse(wildcards.trained), bool(GPU)
    )


def measure_mb(wildcards, attempt):
    """Memory of a token bank or a question; more with every attempt."""
    id = BackboneId.parse(wildcards.backbone)
    return attempt * demands.measure_mb(SETTINGS, id, bool(GPU))


def add_mb(wildcards, attempt):
    """Memory of giving a model test-time registers: two copies of it are looked at."""
    id = BackboneId.parse(wildcards.trained)
    return 2 * attempt * demands.measure_mb(SETTINGS, id, bool(GPU))


def add_minutes(wildcards):
    """Time of giving a model test-time registers: fewer passes than its token bank takes."""
    id = BackboneId.parse(wildcards.trained)
    return demands.measure_minutes(SETTINGS, id, "tokens", bool(GPU))


def measure_minutes(wildcards):
    """Time of a token bank or a question."""
    id = BackboneId.parse(wildcards.backbone)
    question = getattr(wildcards, "question", "tokens")
    return demands.measure_minutes(SETTINGS, id, question, bool(GPU))


# --- data


def source_of_role(wildcards):
    """What must be there before a data set can be listed: the drawn world, or a download."""
    specs = SETTINGS.data.specs(wildcards.role)
    if "world" in specs:
        return [
            LAYOUT.world(split) / "world.json" for split in ("train", "val", "test")
        ]
    place = specs[0].partition(":")[2]
    folder = data_path(SETTINGS, place)
    done = folder.with_name(f"{folder.name}.complete")
    wanted = place in DOWNLOADABLE and (done.exists() or not folder.exists())
    return [os.path.relpath(done)] if wanted else []


def state_of_role(wildcards):
    """What a role's manifest depends on besides its code: which set, and the state of its files."""
    from registers.readers.catalogue import files_state

    identity = {"spec": SETTINGS.data.specs(wildcards.role)}
    if (
        wildcards.role == "text"
    ):  # captions made of class names follow the names chosen for them
        identity |= {"classes": words_digest(SETTINGS.zeroshot.classes)}
    return json.dumps(identity | {"files": files_state(SETTINGS, wildcards.role)})


def reader_code(role):
    """Digest of the code that reads the data sets of a role."""
    from registers.readers.catalogue import reader_modules

    return code_digest(*reader_modules(SETTINGS, role))


# --- backbones


def training_data(wildcards):
    """The manifest of the data set that a method is trained on."""
    method = BackboneId.parse(wildcards.trained).method
    return LAYOUT.manifest(METHODS[method].role)


def identity_of(wildcards):
    """All settings that a training depends on: a change of any other one trains nothing again."""
    return json.dumps(training_identity(SETTINGS, BackboneId.parse(wildcards.trained)))


def published_identity(wildcards):
    """Which published weights a checkpoint is; other ones are fetched in its place."""
    model = released.catalogue()[wildcards.trained]
    return json.dumps(released_lock.identity(LAYOUT, model))


def source_of_published(wildcards):
    """The weights of the published model that one with test-time registers is made of."""
    return LAYOUT.checkpoint(released.catalogue()[wildcards.trained].test_time_of)


def code_of_training(wildcards):
    """Digest of the code that trains; weights that are there keep the digest they were made with.

    So a change of code trains nothing again, unless --config stale=retrain asks for what is stale.
    """
    id = BackboneId.parse(wildcards.trained)
    recorded = recorded_code_parameter(LAYOUT.checkpoint(id))
    if recorded and (SETTINGS.stale == "keep" or not stale.is_stale(SETTINGS, id)):
        return recorded
    return f"code {stale.training_code(id.method)}"


def recorded_code_parameter(weights):
    """What Snakemake's own records say was passed as `code` when these weights were made."""
    records = workflow.persistence.params(IOFile(str(weights))) or []
    codes = [text.strip("'") for text in records if text.startswith("'code ")]
    return codes[0] if weights.is_file() and codes else None


def checkpoint_of(wildcards):
    """A backbone's weights, at the end of training or on the way."""
    return LAYOUT.checkpoint(wildcards.backbone)


# --- questions


def subject_of(wildcards):
    """What a question is asked of: a token bank or a checkpoint."""
    if QUESTIONS[wildcards.question].reads == "bank":
        return LAYOUT.bank(wildcards.backbone) / "index.json"
    return checkpoint_of(wildcards)


def data_of_question(wildcards):
    role = QUESTIONS[wildcards.question].role
    return [LAYOUT.manifest(role)] if role else []


def settings_of_question(wildcards):
    """The settings that a question reads; of files of names and prompts, their content."""
    content = values(SETTINGS, wildcards.question)
    if "zeroshot" in content:
        content["zeroshot"] = {
            key: words_digest(value) for key, value in content["zeroshot"].items()
        }
    return json.dumps(content)


def code_of_question(wildcards):
    """Digest of a question's code and of the readers of its data."""
    question = QUESTIONS[wildcards.question]
    readers = [reader_code(question.role)] if question.role else []
    return " ".join([code_digest(question.module), *readers])


# --- figures and tables


def inputs_of(wildcards):
    """What an artifact is drawn from, by the names of its arguments."""
    return artifacts.inputs(SETTINGS, ARTIFACTS[wildcards.id])


def code_of_artifact(wildcards):
    """Digest of the module that draws an artifact and of all that it imports."""
    return code_digest(ARTIFACTS[wildcards.id].python, "registers.inputs")


def project_files(*names):
    """Files of this checkout, relative, so that a run may be moved or pulled elsewhere."""
    return [os.path.relpath(Path(workflow.basedir) / name) for name in names]

# Settings, checked before any job starts, and the look-ups that the rules share.
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from registers import artifacts
from registers.settings.backbone_id import BackboneId
from registers.settings.data import DOWNLOADABLE
from registers.settings.errors import ConfigError
from registers.settings.paths import check_paths, data_path
from registers.settings.load import load_settings
from registers.data.prompts import OWN, digest

try:
    SETTINGS = load_settings(dict(config))
except ConfigError as error:
    sys.exit(f"params.yaml: {error}")

RUN = SETTINGS.results.as_posix()
ARTIFACTS = artifacts.available(SETTINGS)
BACKBONE = r"[a-z0-9]+(-[a-z]+)?-r\d+-s\d+(-noaa)?"
LARGE = r"[a-z0-9]+-(huge|giant)-r\d+-s\d+(-noaa)?"
GPU = int(
    SETTINGS.device in ("cuda", "mps")
    or (SETTINGS.device == "auto" and shutil.which("nvidia-smi") is not None)
)

CHECKPOINTS_ON_THE_WAY = [
    f"{RUN}/checkpoints/{{trained}}/at{round(100 * fraction):03d}.{ending}"
    for fraction in SETTINGS.fractions
    for ending in ("safetensors", "json")
]

# every job runs the `registers` command of this environment, with these very settings
os.environ.update(
    REGISTERS_PARAMS=json.dumps(dict(config)),
    PATH=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    ),
)


onstart:
    # not before: a dry run of a scale needs none of its data
    from registers.readers.catalogue import check_words

    try:
        check_paths(SETTINGS)
        check_words(SETTINGS)
    except ConfigError as error:
        sys.exit(f"params.yaml: {error}")


wildcard_constraints:
    backbone=rf"{BACKBONE}(-at\d\d\d)?",
    trained=BACKBONE,
    role="labels|text|images|eval|segmentation|depth|discovery",


def checkpoint_of(wildcards):
    """The first door: where a backbone's weights lie."""
    backbone = BackboneId.parse(wildcards.backbone)
    name = "last" if backbone.percent == 100 else f"at{backbone.percent:03d}"
    return f"{RUN}/checkpoints/{backbone.trained}/{name}.safetensors"


def inputs_of(wildcards):
    """What an artifact is drawn from, by the names of its arguments."""
    return artifacts.inputs(SETTINGS, ARTIFACTS[wildcards.id])


def source_of(wildcards):
    """The module that makes an artifact: drawn anew when it changes. A relative path, so that a run may be moved or pulled elsewhere."""
    return os.path.relpath(Path(workflow.basedir) / ARTIFACTS[wildcards.id].source)


def source_of_role(wildcards):
    """What must be there before a data set can be listed: the drawn world, or a download where the set is a public one."""
    specs = SETTINGS.data.specs(wildcards.role)
    if "world" in specs:
        return [
            f"{RUN}/data/world-{split}/world.json" for split in ("train", "val", "test")
        ]
    place = specs[0].partition(":")[2]
    folder = data_path(SETTINGS, place)
    done = folder.with_name(f"{folder.name}.complete")
    wanted = place in DOWNLOADABLE and (done.exists() or not folder.exists())
    return [os.path.relpath(done)] if wanted else []


def training_data(wildcards):
    """The manifest of the data set that a method is trained on."""
    role = {"deit3": "labels", "openclip": "text"}.get(
        BackboneId.parse(wildcards.trained).method, "images"
    )
    return f"{RUN}/data/{role}.json"


def content_of_role(wildcards):
    """What a role's manifest depends on: the data set, and for captions made of class names the names chosen for them."""
    spec, chosen = getattr(SETTINGS.data, wildcards.role), SETTINGS.zeroshot.classes
    named = wildcards.role == "text" and spec == SETTINGS.data.eval and chosen != OWN
    return [spec, digest(chosen)] if named else spec


def recipe_of(wildcards):
    """All settings that a training depends on: a change of any other one trains nothing again."""
    backbone = BackboneId.parse(wildcards.trained)
    recipe = SETTINGS.recipes[backbone.method]
    size = SETTINGS.sizes[backbone.size or recipe.size]
    return json.dumps(
        [
            asdict(recipe),
            asdict(size),
            SETTINGS.image_size,
            SETTINGS.precision,
            SETTINGS.fractions,
        ]
    )


def words_of_report():
    """What the report is made of besides numbers: claims, captions and the page itself."""
    files = [
        "paper/artifacts.yaml",
        "paper/claims.yaml",
        "src/registers/report.py",
        "src/registers/report.html.j2",
    ]
    return [os.path.relpath(Path(workflow.basedir) / file) for file in files]

"""Drawing a figure, table or picture: open its inputs, call its module, write its files."""

import re
from importlib import import_module
from pathlib import Path

from registers import artifacts, published, tracking
from registers.artifacts import Artifact, Picture
from registers.files import write_text
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError, nearest
from registers.settings.run import Settings


def draw(settings: Settings, id: str, began: float | None = None) -> None:
    """Draw "fig07" or "table2" from its measurements, or a picture, "discovery-dinov2-r0-s0".

    began: when the job began, in seconds since the epoch. Raises ConfigError for an unknown id.
    """
    id = re.sub(r"^(fig)(\d)$", r"\g<1>0\2", id.lower())  # Fig7 is fig07
    question, _, backbone = id.partition("-")
    if artifact := artifacts.load().get(id):
        _draw_artifact(settings, artifact, began)
    elif backbone and question in artifacts.PICTURED:
        _draw_picture(settings, Picture(question, str(BackboneId.parse(backbone))), began)
    else:
        ids = list(artifacts.load())
        raise ConfigError(
            f'draw "{id}": must be one of {", ".join(ids)}, or a picture such as '
            f"discovery-dinov2-r0-s0{nearest(id, ids)}"
        )


def _draw_artifact(settings: Settings, artifact: Artifact, began: float | None) -> None:
    from registers.inputs import read

    module = import_module(artifact.python)
    files = artifacts.inputs(settings, artifact)
    for file in (file for several in files.values() for file in several):
        if not Path(file).is_file():
            run = f"snakemake --cores all {artifact.id}"
            raise ConfigError(f"{artifact.id}: {file} is missing; `{run}` makes it and draws")
    inputs = {name: read(settings, several) for name, several in files.items()}
    out = settings.layout.drawing(artifact.kind, artifact.id)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = module.table(**inputs)
    rows.to_csv(out.with_suffix(".csv"), index=False)
    backbones = [Path(file).stem for several in files.values() for file in several]
    _write_caption(settings, out, module.caption(**inputs), backbones)
    with _recorded(settings, artifact.id, {"artifact": artifact.title}, began) as record:
        if artifact.kind == "figures":
            from registers.figures.paint import dark

            dark.save(module.draw(**inputs), out)
            record.artifact(out.with_suffix(".png"))
        else:
            from registers.tables import typeset

            write_text(out.with_suffix(".md"), typeset.markdown(module.shown(rows)))
        record.artifact(out.with_suffix(".csv"))


def _draw_picture(settings: Settings, picture: Picture, began: float | None) -> None:
    from registers.figures.paint import dark, predictions
    from registers.inputs import read

    file = picture.arrays(settings)
    if not Path(file).is_file():
        drawing = settings.layout.drawing("pictures", picture.id, "png")
        run = f"snakemake --cores all {drawing}"
        raise ConfigError(f"{picture.id}: {file} is missing; `{run}` makes it and draws")
    (arrays,) = read(settings, [file]).values()
    out = settings.layout.drawing("pictures", picture.id)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _recorded(settings, picture.id, {"picture": picture.id}, began) as record:
        dark.save(predictions.draw(picture.question, arrays), out)
        caption = predictions.caption(picture.question, arrays)
        _write_caption(settings, out, caption, [picture.backbone])
        record.artifact(out.with_suffix(".png"))


def _write_caption(settings: Settings, out: Path, text: str, names: list[str]) -> None:
    """The words under a drawing, and of which of these backbones registers came at test time."""
    added = published.caption(settings, names)
    write_text(out.with_suffix(".txt"), f"{text} {added}".rstrip() + "\n")


def draw_training(settings: Settings) -> None:
    """Draw the training curves of a run's backbones of their methods' own sizes."""
    import pandas as pd

    from registers.figures import training_curves
    from registers.figures.paint import style

    parts = []
    for id in artifacts.trained(settings):
        history = settings.layout.history(id)
        if history.is_file() and not id.size and not id.noaa and id.seed == settings.seeds[0]:
            about = dict(method=id.method, registers=id.registers)
            parts.append(pd.read_csv(history).assign(**about))
    if parts:
        style.save(training_curves.draw(pd.concat(parts)), settings.layout.training_curves)


def _recorded(settings: Settings, id: str, tags: dict[str, str], began: float | None):
    return tracking.run(settings.results, "draw", id, tags, {}, began=began)

"""What the page shows of each figure, table and picture."""

import base64
import io
import math
import os
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pandas as pd
from PIL import Image

from registers import artifacts, inputs
from registers.artifacts import Artifact, Picture
from registers.figures.paint import style
from registers.layout import Layout
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings
from registers.tables import typeset

RULE_FILE = "workflow/rules/artifacts.smk"
EFFORT = 50  # of 100 that WebP takes to find a small file


def section(settings: Settings, artifact: Artifact, printed: pd.DataFrame, keys: list[str]) -> dict:
    """All that the page shows of one artifact. keys: of the runs behind it."""
    layout = settings.layout
    stem = layout.drawing(artifact.kind, artifact.id)
    in_text = artifact.section[0].isdigit()
    root = artifacts.PAPER.parent
    about = {
        **asdict(artifact),
        "number": number(artifact),
        "place": f"{'section' if in_text else 'appendix'} {artifact.section}",
        "ours": caption(settings, stem, settings.seeds[0] if artifact.is_of_one_seed else None),
        "csv": on_page(layout, stem.with_suffix(".csv")),
        "source": artifact.source,
        "source_link": relative(layout, root / artifact.source),
        "rule": f"{RULE_FILE} ({artifact.kind.removesuffix('s')})",
        "rule_link": relative(layout, root / RULE_FILE),
        "runs": keys,
        "command": command(artifact.id),
    }
    if artifact.kind == "tables":
        rows = table_of(layout, artifact)
        about["table"] = typeset_table(shown(artifact, rows))
        return about | {"all_numbers": grid(rows)}
    theirs = printed[printed["artifact"] == artifact.id]
    return about | {
        "picture": picture(stem),
        "printed": printed_numbers(theirs),
        "pdf": on_page(layout, stem.with_suffix(".pdf")),
    }


def number(artifact: Artifact) -> str:
    """Figure 1, Table 2."""
    digits = int("".join(filter(str.isdigit, artifact.id)))
    return f"{'Table' if artifact.kind == 'tables' else 'Figure'} {digits}"


def further(settings: Settings, drawn: Picture) -> dict:
    """What the page shows of a picture beyond the paper's."""
    layout = settings.layout
    stem = layout.drawing("pictures", drawn.id)
    return {
        "id": drawn.id,
        "picture": picture(stem),
        "ours": caption(settings, stem, BackboneId.parse(drawn.backbone).seed),
        "pdf": on_page(layout, stem.with_suffix(".pdf")),
        "command": command(stem.with_suffix(".png").as_posix()),
    }


def caption(settings: Settings, stem: Path, seed: int | None) -> str:
    """What was drawn, in words; of several seeds also which one it shows.

    stem: path of the drawing without ending. seed: None for means over seeds and exact answers.
    """
    text = stem.with_suffix(".txt").read_text().strip()
    if seed is None or len(settings.seeds) == 1:
        return text
    return f"{text} It shows seed {seed}, of seeds {style.listing(map(str, settings.seeds))}."


def runs(settings: Settings, artifact: Artifact) -> list[str]:
    """Keys of the MLflow runs behind an artifact: trainings, measurements, the drawing."""
    files = [file for several in artifacts.inputs(settings, artifact).values() for file in several]
    rows = inputs.rows(settings, [file for file in files if file.endswith(".csv")])
    # arrays carry no rows: the name of the file is the backbone
    names = [*rows["backbone"], *(Path(file).stem for file in files if file.endswith(".npz"))]
    trained = {str(BackboneId.parse(name).trained) for name in names if name}
    trainings = [f"{settings.run}/train/{id}" for id in sorted(trained)]
    measurements = sorted({run for run in rows["run"] if run})
    return [*trainings, *measurements, f"{settings.run}/draw/{artifact.id}"]


# --- tables ---------------------------------------------------------------------------------------


def table_of(layout: Layout, artifact: Artifact) -> pd.DataFrame:
    """The numbers of a table as its file has them; only what is empty is no number."""
    path = layout.drawing(artifact.kind, artifact.id, "csv")
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def shown(artifact: Artifact, rows: pd.DataFrame) -> pd.DataFrame:
    """A table as it is printed."""
    return import_module(artifact.python).shown(rows)


def typeset_table(table: pd.DataFrame) -> dict:
    """Heads and rows of a printed table, each cell as its lines."""
    head = [column.split("\n") for column in map(str, table.columns)]
    head[0] = [""]  # models need no name
    body = [[str(cell).split("\n") for cell in row] for row in table.itertuples(index=False)]
    return {"head": head, "body": body}


def grid(rows: pd.DataFrame) -> dict:
    """All numbers of a table: its cells, and whether they are numbers. It equals the CSV file."""
    numeric = [pd.api.types.is_numeric_dtype(rows[column]) for column in rows.columns]
    texts = [[typeset.plain(value) for value in row] for row in rows.itertuples(index=False)]
    return {
        "head": list(zip(rows.columns, numeric)),
        "body": [list(zip(row, numeric)) for row in texts],
    }


def printed_numbers(rows: pd.DataFrame) -> list[str]:
    """The paper's numbers, source by source: "Fig. 3, caption: DINOv2, share above: 2.37 %"."""
    texts = []
    for source, part in rows.groupby("source", sort=False):
        numbers = [f"{row.row}, {row.column}: {_printed(row)}" for row in part.itertuples()]
        texts.append(f"{source}: {'; '.join(numbers)}")
    return texts


def _printed(row) -> str:
    value = row.note if row.value is None or math.isnan(row.value) else f"{row.value:g}"
    return f"{value} {row.unit}" if row.unit else value


# --- links ----------------------------------------------------------------------------------------


def picture(stem: Path) -> dict[str, str]:
    """A drawn figure for a light and for a dark page. stem: its path without ending."""
    return {
        "light": embedded(stem.with_suffix(".png")),
        "dark": embedded(stem.with_suffix(".dark.png")),
    }


def embedded(image: Path) -> str:
    """A picture as the page holds it: WebP, which loses nothing either, takes half as much room."""
    packed = io.BytesIO()
    with Image.open(image) as opened:
        opened.convert("RGB").save(packed, "WEBP", lossless=True, quality=EFFORT, method=4)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


def command(target: str) -> str:
    return f"snakemake --cores all {target}"


def on_page(layout: Layout, path: Path) -> str:
    """A file of the run's reports as the page links to it."""
    return path.relative_to(layout.reports).as_posix()


def relative(layout: Layout, path: Path) -> str | None:
    """A file of the checkout as the page links to it.

    None where page and file lie in different places: no page names a folder of this machine.
    """
    if not path.is_relative_to(Path.cwd()):
        return None
    return Path(os.path.relpath(path, layout.reports)).as_posix()

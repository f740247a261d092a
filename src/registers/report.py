"""The regenerated paper: one self-contained page, reports/<run>/paper.html.

claims.json and metrics/, one file for each question, stand beside it.
"""

import base64
import html
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from importlib import resources
from pathlib import Path

import pandas as pd
from jinja2 import Environment

from registers import artifacts, headlines, inputs, stale, tracking
from registers.artifacts import Artifact, Picture
from registers.claims.loading import load as load_claims
from registers.claims.verdicts import CONTRADICTED, REPRODUCED, VERDICTS, Verdict, judged
from registers.files import write_json, write_text
from registers.layout import Layout
from registers.measurements import code_version
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

RULE_FILE = "workflow/rules/artifacts.smk"


def build(settings: Settings) -> None:
    """Write the page, claims.json and metrics/ of a run from its results and drawings.

    Raises FileNotFoundError where an artifact that these settings can make has not been drawn.
    """
    layout = settings.layout
    built = artifacts.available(settings).values()
    measured = inputs.rows(settings, artifacts.evidence(settings))
    printed = inputs.printed()
    claims = load_claims(artifacts.PAPER / "claims.yaml")
    verdicts = judged(claims, measured, settings.scale)
    runs = {artifact.id: _runs(settings, artifact) for artifact in built}
    keys = {key for behind in (*runs.values(), *(v.runs for v in verdicts)) for key in behind}
    links = tracking.links(settings.mlflow_uri, sorted(keys))
    page = _template().render(
        about=_about(settings, measured),
        warnings=warnings(measured["code"], stale.weights(settings)),
        verdicts=verdicts,
        tally={name: sum(v.verdict == name for v in verdicts) for name in VERDICTS},
        together=together(verdicts),
        artifacts=[_section(layout, artifact, printed, runs[artifact.id]) for artifact in built],
        pictures=[_further(layout, picture) for picture in artifacts.pictures(settings)],
        link=links.get,
    )
    write_json(layout.reports / "claims.json", [asdict(v) for v in verdicts])
    for name, numbers in metrics(settings, measured, verdicts).items():
        write_json(layout.metrics(name), numbers)
    write_text(layout.page, page)
    _remove_old_drawings(layout, built)


def _remove_old_drawings(layout: Layout, built: Iterable[Artifact]) -> None:
    """Delete figures and tables of earlier settings, which would stand beside those of this run."""
    current = {Path(output) for artifact in built for output in artifact.outputs(layout)}
    for kind in ("figures", "tables"):
        for file in set((layout.reports / kind).glob("*.*")) - current:
            file.unlink()


def metrics(settings: Settings, measured: pd.DataFrame, verdicts: list[Verdict]) -> dict[str, dict]:
    """What `dvc metrics` compares, by file: each question's main number without and with registers.

    {"linear": {"dinov2": {"r0": 0.41, "r4": 0.42}}}; "claims" holds how many verdicts there are.
    """
    counts = tuple(id.registers for id in artifacts.family(settings, "ends"))
    numbers = headlines.by_method(measured.to_dict("records"), counts)
    tally = {name: sum(v.verdict == name for v in verdicts) for name in VERDICTS}
    return {name: numbers.get(name, {}) for name in headlines.COMPARED} | {"claims": tally}


def together(verdicts: list[Verdict]) -> str:
    """How many verdicts on samples there are, and how many stand when all are taken together."""
    asked = [v for v in verdicts if v.p is not None]
    decided = [v for v in asked if v.verdict in (REPRODUCED, CONTRADICTED)]
    standing = sum(bool(v.together) for v in decided)
    return (
        f"Of {len(asked)} claims that rest on samples, {len(decided)} are decided, each wrong at "
        f"most 5 % of the time; {standing} of them stand at 5 % for all {len(asked)} together "
        "(Holm's correction)."
    )


def warnings(codes: pd.Series, stale_weights: list[str]) -> list[str]:
    """What a reader must know of numbers that do not all come from the code at hand.

    codes: the commit of every row shown. stale_weights: backbones trained by other code.
    """
    commits = _commits(codes)
    texts = []
    if len(commits) > 1:
        texts.append(
            f"The rows on this page were measured at {len(commits)} commits, so numbers side by "
            f"side may come from different code: {', '.join(commits)}."
        )
    if stale_weights:
        texts.append(
            "The weights of these backbones were trained by other code than the code at hand: "
            f"{', '.join(stale_weights)}."
        )
    return texts


def markdown(rows: pd.DataFrame) -> str:
    """A table as GitHub Markdown; an empty cell is a dash."""
    body = [[_cell(value) for value in row] for row in rows.itertuples(index=False)]
    lines = [list(rows.columns), ["---"] * len(rows.columns), *body]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)


# --- the head of the page -------------------------------------------------------------------------


def _about(settings: Settings, measured: pd.DataFrame) -> list[tuple[str, str]]:
    """What was run: (name, value)."""
    trained = sorted({str(BackboneId.parse(b).trained) for b in measured["backbone"] if b})
    registers = ", ".join(map(str, settings.registers))
    # rows without a backbone have no data set; those of token_class name label sets
    looked_at = measured[(measured["backbone"] != "") & (measured["question"] != "token_class")]
    data_sets = sorted({name for name in looked_at["data"] if name})
    return [
        ("Scale", settings.scale),
        ("Data", ", ".join(data_sets) or settings.data.eval),
        (
            "Backbones trained",
            f"{len(trained)} ({', '.join(settings.methods)}; registers {registers})",
        ),
        ("Seeds", ", ".join(map(str, settings.seeds))),
        ("Images", f"{settings.image_size} × {settings.image_size} pixels"),
        ("Device", _device(settings)),
        ("Rows measured at", ", ".join(_commits(measured["code"])) or "unknown"),
        ("Page made at", code_version()),
        ("Made", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
    ]


def _commits(codes: pd.Series) -> list[str]:
    """Each commit with its number of rows, most first: "f599752e11 (120 rows)"."""
    counts = codes[codes != ""].value_counts()
    return [f"{commit} ({n} row{'s' if n > 1 else ''})" for commit, n in counts.items()]


def _device(settings: Settings) -> str:
    """The device that the trainings recorded of themselves; without a record, the setting."""
    devices = set()
    for spool in (settings.layout.tracking / "train").glob("*.jsonl"):
        try:
            start = json.loads(spool.read_text().partition("\n")[0])
            devices.add(start["tags"]["device"])
        except (ValueError, TypeError, KeyError):  # a spool that a full disk has cut
            continue
    return ", ".join(sorted(devices)) or settings.device


# --- figures, tables and pictures -----------------------------------------------------------------


def _section(layout: Layout, artifact: Artifact, printed: pd.DataFrame, keys: list[str]) -> dict:
    """All that the page shows of one artifact. keys: of the runs behind it."""
    stem = layout.drawing(artifact.kind, artifact.id)
    number = int("".join(filter(str.isdigit, artifact.id)))
    in_text = artifact.section[0].isdigit()
    root = artifacts.PAPER.parent
    section = {
        **asdict(artifact),
        "place": f"{'section' if in_text else 'appendix'} {artifact.section}",
        "ours": stem.with_suffix(".txt").read_text().strip(),
        "csv": _on_page(layout, stem.with_suffix(".csv")),
        "source": artifact.source,
        "source_link": _relative(layout, root / artifact.source),
        "rule": f"{RULE_FILE} ({artifact.kind.removesuffix('s')})",
        "rule_link": _relative(layout, root / RULE_FILE),
        "runs": keys,
    }
    if artifact.kind == "tables":
        rows = pd.read_csv(stem.with_suffix(".csv"), keep_default_na=False, na_values=[""])
        return section | {
            "number": f"Table {number}",
            "table": _grid(rows),
            "command": _command(artifact.id),
        }
    theirs = printed[printed["artifact"] == artifact.id]
    return section | {
        "number": f"Figure {number}",
        "picture": _embedded(stem.with_suffix(".png")),
        "printed": [_printed(row) for row in theirs.itertuples()],
        "pdf": _on_page(layout, stem.with_suffix(".pdf")),
        "command": _command(artifact.id),
    }


def _further(layout: Layout, picture: Picture) -> dict:
    """What the page shows of a picture beyond the paper's."""
    png, pdf, caption = map(Path, picture.outputs(layout))
    return {
        "id": picture.id,
        "picture": _embedded(png),
        "ours": caption.read_text().strip(),
        "pdf": _on_page(layout, pdf),
        "command": _command(png.as_posix()),
    }


def _runs(settings: Settings, artifact: Artifact) -> list[str]:
    """Keys of the MLflow runs behind an artifact: trainings, measurements, the drawing."""
    files = [file for several in artifacts.inputs(settings, artifact).values() for file in several]
    rows = inputs.rows(settings, [file for file in files if file.endswith(".csv")])
    # arrays carry no rows: the name of the file is the backbone
    names = [*rows["backbone"], *(Path(file).stem for file in files if file.endswith(".npz"))]
    trained = {str(BackboneId.parse(name).trained) for name in names if name}
    trainings = [f"{settings.run}/train/{id}" for id in sorted(trained)]
    measurements = sorted({run for run in rows["run"] if run})
    return [*trainings, *measurements, f"{settings.run}/draw/{artifact.id}"]


# --- how things look on the page ------------------------------------------------------------------


def _grid(rows: pd.DataFrame) -> dict:
    """A table for the page: its cells, and whether they are numbers.

    Columns that are empty or hold one word throughout stay, so that it equals the CSV file.
    """
    numeric = [pd.api.types.is_numeric_dtype(rows[column]) for column in rows.columns]
    texts = [[_cell(value) for value in row] for row in rows.itertuples(index=False)]
    return {
        "head": list(zip(rows.columns, numeric)),
        "body": [list(zip(row, numeric)) for row in texts],
    }


def _printed(row) -> str:
    """A number of the paper: "DINOv2, share above: 2.37 % (Fig. 3)"."""
    value = row.note if row.value is None or math.isnan(row.value) else f"{row.value:g}"
    unit = f" {row.unit}" if row.unit else ""
    return f"{row.row}, {row.column}: {value}{unit} ({row.source})"


def _cell(value) -> str:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escaped(cell) -> str:
    """A cell as Markdown shows it: names of classes and folders may hold HTML."""
    text = html.escape(" ".join(str(cell).split()), quote=False)
    return text.replace("|", "\\|")


def _embedded(image: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()


def _command(target: str) -> str:
    return f"snakemake --cores all {target}"


def _on_page(layout: Layout, path: Path) -> str:
    """A file of the run's reports as the page links to it."""
    return path.relative_to(layout.reports).as_posix()


def _relative(layout: Layout, path: Path) -> str | None:
    """A file of the checkout as the page links to it.

    None where page and file lie in different places: no page names a folder of this machine.
    """
    if not path.is_relative_to(Path.cwd()):
        return None
    return Path(os.path.relpath(path, layout.reports)).as_posix()


def _template():
    text = resources.files("registers").joinpath("report.html.j2").read_text()
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)

"""The regenerated paper: reports/paper.html, one self-contained page, with claims.json and metrics.json beside it."""

import base64
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from importlib import resources
from pathlib import Path

import pandas as pd
from jinja2 import Environment

from registers import artifacts, claims, reference, tracking
from registers.artifacts import Artifact
from registers.measurements import code_version
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings

REPORTS = Path("reports")
RULE_FILE = "workflow/rules/artifacts.smk"
UI = "http://127.0.0.1:5000"  # where `registers ui` shows MLflow
METRICS = {
    "linear": ("top1",),
    "zeroshot": ("top1",),
    "segmentation": ("miou",),
    "depth": ("rmse",),
    "discovery": ("corloc", "corloc_tuned"),
    "outliers": ("second_mode", "share", "max_over_median"),
}


def build(settings: Settings, read: Callable[[Settings, list[str]], pd.DataFrame]) -> None:
    """Write the report, claims.json and metrics.json from what lies in reports/ and results/.

    read(settings, files) gives the measurements in files, sizes named (see `cli`). Raises FileNotFoundError where an artifact that these
    settings can make has not been drawn.
    """
    built = artifacts.available(settings)
    measured = read(settings, artifacts.evidence(settings))
    verdicts = [
        claims.verdict(claim, measured) for claim in claims.load(artifacts.PAPER / "claims.yaml")
    ]
    printed = reference.read(artifacts.PAPER / "reference.yaml")
    runs = {a.id: _runs(settings, a, read) for a in built.values()}
    known = tracking.find_runs(
        settings.mlflow_uri,
        sorted(
            {key for keys in runs.values() for key in keys} | {r for v in verdicts for r in v.runs}
        ),
    )
    _write(REPORTS / "claims.json", [asdict(v) for v in verdicts])
    _write(REPORTS / "metrics.json", metrics(measured, verdicts))
    page = _template().render(
        about=_about(settings, measured),
        verdicts=verdicts,
        tally={v: sum(one.verdict == v for one in verdicts) for v in claims.VERDICTS},
        artifacts=[_section(settings, a, printed, runs[a.id]) for a in built.values()],
        pictures=[_further(p) for p in artifacts.pictures(settings)],
        link=lambda key: _link(known.get(key)),
    )
    _write(REPORTS / "paper.html", page)


def metrics(measured: pd.DataFrame, verdicts: list[claims.Verdict]) -> dict:
    """What `dvc metrics` compares: verdicts by claim, and the main numbers by question, metric and backbone."""
    found: dict = {"claims": {v.id: v.verdict for v in verdicts}}
    for question, names in METRICS.items():
        for name in names:
            rows = measured[
                (measured["question"] == question) & (measured["metric"] == name)
            ].dropna(subset=["value"])
            if len(rows):
                several = rows["data"].nunique() > 1  # sets, as in Table 3
                values = {
                    f"{r.backbone} on {r.data}" if several else r.backbone: round(float(r.value), 6)
                    for r in rows.itertuples()
                }
                found.setdefault(question, {})[name] = values
    return found


def markdown(rows: pd.DataFrame) -> str:
    """A table as GitHub Markdown; an empty cell is a dash."""
    lines = [
        list(rows.columns),
        ["---"] * len(rows.columns),
        *([_cell(v) for v in row] for row in rows.itertuples(index=False)),
    ]
    return (
        "\n".join(
            "| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines
        )
        + "\n"
    )


# --- inside -------------------------------------------------------------------------------------------------------------


def _section(
    settings: Settings, artifact: Artifact, printed: pd.DataFrame, keys: list[str]
) -> dict:
    """All that the page shows of one artifact."""
    stem = REPORTS / artifact.kind / artifact.id
    rows = pd.read_csv(stem.with_suffix(".csv"), keep_default_na=False, na_values=[""])
    theirs = printed[printed["artifact"] == artifact.id]
    root = artifacts.PAPER.parent
    return {
        **asdict(artifact),
        "number": f"{'Table' if artifact.kind == 'tables' else 'Figure'} {int(''.join(filter(str.isdigit, artifact.id)))}",
        "place": f"section {artifact.section}"
        if artifact.section[0].isdigit()
        else f"appendix {artifact.section}",
        "ours": stem.with_suffix(".txt").read_text().strip(),
        "picture": _picture(stem.with_suffix(".png")) if artifact.kind == "figures" else None,
        "table": _grid(rows) if artifact.kind == "tables" else None,
        "printed": []
        if artifact.kind == "tables"
        else [_printed(row) for row in theirs.itertuples()],
        "csv": stem.with_suffix(".csv").relative_to(REPORTS).as_posix(),
        "pdf": stem.with_suffix(".pdf").relative_to(REPORTS).as_posix()
        if artifact.kind == "figures"
        else None,
        "source": artifact.source,
        "source_link": _relative(root / artifact.source),
        "rule": f"{RULE_FILE} ({artifact.kind.removesuffix('s')})",
        "rule_link": _relative(root / RULE_FILE),
        "command": f"snakemake --cores all {stem.with_suffix('.png' if artifact.kind == 'figures' else '.md').as_posix()}",
        "runs": keys,
    }


def _further(picture: artifacts.Picture) -> dict:
    """What the page shows of a picture beyond the paper's."""
    png, pdf, words = map(Path, picture.outputs)
    return {
        "id": picture.id,
        "picture": _picture(png),
        "ours": words.read_text().strip(),
        "pdf": pdf.relative_to(REPORTS).as_posix(),
        "command": f"snakemake --cores all {png.as_posix()}",
    }


def _runs(settings: Settings, artifact: Artifact, read: Callable) -> list[str]:
    """Keys of the MLflow runs behind an artifact: the trainings, the measurements, the drawing."""
    files = [f for fs in artifacts.inputs(settings, artifact).values() for f in fs]
    frame = read(settings, [f for f in files if f.endswith(".csv")])
    measured = sorted({run for run in frame["run"] if run})
    seen = [
        *frame["backbone"],
        *(Path(f).stem for f in files if f.endswith(".npz")),
    ]  # maps carry no rows, their name says the backbone
    backbones = sorted({str(BackboneId.parse(b).trained) for b in seen if b})
    return (
        [f"{settings.run}/train/{b}" for b in backbones]
        + measured
        + [f"{settings.run}/draw/{artifact.id}"]
    )


def _about(settings: Settings, measured: pd.DataFrame) -> list[tuple[str, str]]:
    """What was run, for the head of the page: (name, value)."""
    trained = sorted({str(BackboneId.parse(b).trained) for b in measured["backbone"] if b})
    seen = measured[
        (measured["backbone"] != "") & (measured["question"] != "token_class")
    ]  # whose data are label sets
    return [
        ("Scale", settings.scale),
        ("Data", ", ".join(sorted({d for d in seen["data"] if d})) or settings.data.eval),
        (
            "Backbones trained",
            f"{len(trained)} ({', '.join(settings.methods)}; registers {', '.join(map(str, settings.registers))})",
        ),
        ("Seeds", ", ".join(map(str, settings.seeds))),
        ("Images", f"{settings.image_size} × {settings.image_size} pixels"),
        ("Device", _device(settings)),
        ("Code", code_version()),
        ("Made", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
    ]


def _device(settings: Settings) -> str:
    """The device that the trainings recorded of themselves; the setting where there is no record."""
    spools = sorted((settings.results / "tracking" / "train").glob("*.jsonl"))
    starts = [json.loads(text.splitlines()[0]) for text in (s.read_text() for s in spools) if text]
    found = sorted(
        {start["tags"]["device"] for start in starts if "device" in start.get("tags", {})}
    )
    return ", ".join(found) or settings.device


def _picture(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _grid(rows: pd.DataFrame) -> dict:
    """A table for the page; columns that are empty or the same word throughout stay, so that it equals the csv."""
    numeric = [pd.api.types.is_numeric_dtype(rows[c]) for c in rows.columns]
    return {
        "head": list(zip(rows.columns, numeric)),
        "body": [[(_cell(v), n) for v, n in zip(r, numeric)] for r in rows.itertuples(index=False)],
    }


def _printed(row) -> str:
    value = row.note if row.value is None or math.isnan(row.value) else f"{row.value:g}"
    return f"{row.row}, {row.column}: {value}{' ' + row.unit if row.unit else ''} ({row.source})"


def _cell(value) -> str:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _link(run: tuple[str, str] | None) -> str | None:
    return f"{UI}/#/experiments/{run[0]}/runs/{run[1]}" if run else None


def _relative(path: Path) -> str | None:
    """Path as seen from the page, where both lie in one checkout; None elsewhere (no page names a folder of this machine)."""
    seen = os.path.relpath(path, REPORTS)
    return Path(seen).as_posix() if path.is_relative_to(Path.cwd()) else None


def _template():
    text = resources.files("registers").joinpath("report.html.j2").read_text()
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)


def _write(path: Path, content: str | list | dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(
        content
        if isinstance(content, str)
        else json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    )
    os.replace(partial, path)

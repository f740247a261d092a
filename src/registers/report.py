"""The regenerated paper: one self-contained page, reports/<run>/paper.html.

Beside it stand claims.json, the picture of all claims (claims.png, .pdf, .csv), metrics/, one file
for each question, and paper.pdf, the same to hand around.
"""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from importlib import resources
from pathlib import Path

import pandas as pd
from jinja2 import Environment

from registers import artifacts, headlines, inputs, published, stale, tracking
from registers.artifacts import Artifact
from registers.claims import forest
from registers.claims.loading import load as load_claims
from registers.claims.verdicts import CONTRADICTED, REPRODUCED, VERDICTS, Verdict, judged
from registers.figures.paint import dark
from registers.files import write_json, write_text
from registers.layout import Layout
from registers.measurements import code_version
from registers.page import handout, opening, sections
from registers.settings.run import Settings

NAMED = 4  # backbones that a warning names


def build(settings: Settings) -> None:
    """Write the page, the claims, metrics/ and paper.pdf of a run from its results and drawings.

    Raises FileNotFoundError where an artifact that these settings can make has not been drawn.
    """
    layout = settings.layout
    built = artifacts.available(settings).values()
    measured = inputs.rows(settings, artifacts.evidence(settings))
    printed = inputs.printed()
    claims = load_claims(artifacts.PAPER / "claims.yaml")
    verdicts = judged(claims, evidence(settings, measured), settings.scale, printed)
    _write_claims(layout, verdicts)
    runs = {artifact.id: sections.runs(settings, artifact) for artifact in built}
    keys = {key for behind in (*runs.values(), *(v.runs for v in verdicts)) for key in behind}
    links = tracking.links(settings.mlflow_uri, sorted(keys))
    shown = [sections.section(settings, artifact, printed, runs[artifact.id]) for artifact in built]
    first_screen = _first_screen(settings, verdicts, measured, shown)
    page = _template().render(
        **first_screen,
        about=_about(settings, measured),
        warnings=warnings(measured["code"], stale.weights(settings)),
        verdicts=verdicts,
        tally={name: sum(v.verdict == name for v in verdicts) for name in VERDICTS},
        together=together(verdicts),
        artifacts=shown,
        pictures=[sections.further(settings, picture) for picture in artifacts.pictures(settings)],
        handout=layout.handout.name,
        link=links.get,
    )
    for name, numbers in metrics(settings, measured, verdicts).items():
        write_json(layout.metrics(name), numbers)
    write_text(layout.page, page)
    handout.write(settings, verdicts, first_screen, shown)
    _remove_old_drawings(layout, built)


def evidence(settings: Settings, measured: pd.DataFrame) -> pd.DataFrame:
    """The rows that claims are judged on.

    A published model whose test-time registers are empty, as nothing could be moved, is no model
    with registers.
    """
    return measured[~measured["backbone"].isin(published.unmoved(settings))]


def _first_screen(
    settings: Settings, verdicts: list[Verdict], measured: pd.DataFrame, shown: list[dict]
) -> dict:
    """What a reader sees first: the conclusion, Fig. 1, what was trained, and all claims."""
    claims = settings.layout.claims
    return {
        "conclusion": opening.conclusion(verdicts, measured),
        "first": next((each for each in shown if "picture" in each), None),
        "trained": opening.trained(settings),
        "forest": {
            "picture": sections.picture(claims),
            "caption": forest.caption(verdicts),
            "pdf": f"{claims.name}.pdf",
            "csv": f"{claims.name}.csv",
        },
    }


def _write_claims(layout: Layout, verdicts: list[Verdict]) -> None:
    """claims.json, and all claims as a picture with its numbers."""
    write_json(layout.claims.with_suffix(".json"), [asdict(v) for v in verdicts])
    dark.save(forest.draw(verdicts), layout.claims)
    forest.table(verdicts).to_csv(layout.claims.with_suffix(".csv"), index=False)


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
    if not asked:
        return "None of the verdicts here rests on samples."
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
        more = len(stale_weights) - NAMED
        texts.append(
            "The weights of these backbones were trained by other code than the code at hand: "
            f"{', '.join(stale_weights[:NAMED])}{f' and {more} more' if more > 0 else ''}."
        )
    return texts


# --- how it was made ------------------------------------------------------------------------------


def _about(settings: Settings, measured: pd.DataFrame) -> list[tuple[str, str]]:
    """How the page was made: (name, value)."""
    # rows without a backbone have no data set; those of token_class name label sets
    looked_at = measured[(measured["backbone"] != "") & (measured["question"] != "token_class")]
    data_sets = sorted({name for name in looked_at["data"] if name})
    return [
        ("Scale", settings.scale),
        ("Evaluated on", ", ".join(data_sets) or settings.data.eval),
        ("Rows measured at", ", ".join(_commits(measured["code"])) or "unknown"),
        ("Page made at", code_version()),
        ("Made", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
    ]


def _commits(codes: pd.Series) -> list[str]:
    """Each commit with its number of rows, most first: "f599752e11 (120 rows)"."""
    counts = codes[codes != ""].value_counts()
    return [f"{commit} ({n} row{'s' if n > 1 else ''})" for commit, n in counts.items()]


def _template():
    text = resources.files("registers").joinpath("report.html.j2").read_text()
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)

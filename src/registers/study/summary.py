"""The pages of the study, from results.csv and the figures: reports/emergence.md and what it
links to."""

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from registers import files
from registers.figures.paint import style
from registers.study import figures, label_figures, search_figures
from registers.study.regime import CONDITIONS
from registers.study.results import EARLY, SURELY, load
from registers.study.seeds import LOST, Seeds, number, placed, steady
from registers.study.sweep import Sweep

# Templates, one for each question, and the pages under reports/ that they make.
TEMPLATES = Path(__file__).parent / "pages"
QUESTIONS = ("ingredients", "ordinary", "cls", "lookup", "constants", "methods", "trials", "search")
PAGES = {"emergence": "emergence.md"} | {name: f"emergence/{name}.md" for name in QUESTIONS}
SCALES = ("long", "long-layer-scale")  # of the paper's recipes
SEEDS = 3  # a regime counts as found when all conditions hold in so many
VARIED = (
    "summary",
    "background",
    "task",
    "width",
    "depth",
    "heads",
    "ffn",
    "bias",
    "layer_scale",
    "gain",
    "optimizer",
    "lr",
    "weight_decay",
)
FIRST = CONDITIONS[:3]  # those without registers
CHARTED = 4  # variants whose course is drawn


def write(sweep: Sweep, runs: Path, out: Path) -> pd.DataFrame:
    """reports/emergence.md, what it links to, emergence/results.csv and the figures. out: reports/.

    Figures of runs whose files are not at hand stay as they are.
    """
    folder = out / "emergence"
    folder.mkdir(parents=True, exist_ok=True)
    frame = load(runs, sweep, folder / "results.csv")
    write_csv(frame, folder / "results.csv")
    frame = load(runs / "none", sweep, folder / "results.csv")  # numbers as a clone reads them
    draw(sweep, frame, runs, folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    told = facts(sweep, frame, runs, out)
    for template, page in PAGES.items():
        files.write_text(out / page, environment.get_template(f"{template}.md.j2").render(**told))
    return frame


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    text = frame.to_csv(index=False, float_format="%.5g")
    files.write_text(path, text)


# --- figures


def draw_headline(sweep: Sweep, runs: Path, folder: Path) -> None:
    """The first figure: the headline's first seed without and with registers."""
    pair(sweep, sweep.headline, runs, folder / "headline", "pool")


def pair(sweep: Sweep, variant: str, runs: Path, figure: Path, reader: str) -> None:
    """A variant's first seed without and with four registers, where its runs are at hand."""
    shown = [f"{variant}-r{r}-s{sweep.variants[variant].seeds[0]}" for r in (0, 4)]
    if all((runs / name / "maps.npz").is_file() for name in shown):
        style.save(figures.headline(runs, shown, reader), figure)


def draw(sweep: Sweep, frame: pd.DataFrame, runs: Path, folder: Path) -> None:
    """All figures whose runs are at hand, but the first, which has a rule of its own."""
    tokens = frame[frame["regime.world"] == "tokens"]
    scenes = frame[frame["regime.world"] != "tokens"]
    if tokens.variant.isin(list(sweep.ingredients)).any():
        style.save(figures.ingredients(tokens, sweep), folder / "ingredients")
    if sweep.ordinary:
        pair(sweep, sweep.ordinary, runs, folder / "ordinary", "pool")
    if sweep.openclip:
        pair(sweep, sweep.openclip, runs, folder / "openclip", "attention")
    if sweep.several:
        shown = first_found(frame, sweep.several)
        names = [f"{sweep.several}-r{r}-s{shown}" for r in (0, 4)]
        if shown is not None and all((runs / name / "maps.npz").is_file() for name in names):
            style.save(figures.headline(runs, names, "cls"), folder / "several")
            style.save(label_figures.carriers(runs, names), folder / "carriers")
    if "exchanged/own" in tokens and len(placed(tokens)):
        style.save(label_figures.places(tokens), folder / "places")
    if "redundant_constant" in tokens and tokens.redundant_constant.notna().any():
        style.save(figures.kinds(tokens), folder / "kinds")
    if sweep.sink:
        pair(sweep, sweep.sink, runs, folder / "sink", "attention")
    if sweep.withdrawal:
        seeds = sweep.variants[sweep.withdrawal].seeds
        names = [[f"{sweep.withdrawal}-r{r}-s{seed}" for r in (0, 4)] for seed in seeds]
        if all((runs / name / "history.csv").is_file() for both in names for name in both):
            style.save(figures.withdrawal(runs, names), folder / "withdrawal")
    if sweep.lookup:
        rows = tokens[tokens.variant.isin(sweep.lookup)]
        every = all((runs / name / "history.csv").is_file() for name in rows.run)
        if every and set(rows.variant) == set(sweep.lookup):
            style.save(figures.lookup(runs, rows, *sweep.lookup), folder / "lookup")
    if len(scenes):
        style.save(search_figures.landscape(scenes), folder / "landscape")
    variants = [v for v in sweep.shown if (frame.variant == v).any()][:CHARTED]
    names = {}
    for variant in variants:
        mine = frame[frame.variant == variant].sort_values(["seed", "registers"])
        names[variant] = list(mine.run)
    every = [name for listing in names.values() for name in listing]
    if every and all((runs / name / "maps.npz").is_file() for name in every):
        style.save(search_figures.course(runs, frame, variants), folder / "course")
        first = [n for n in every if n.endswith(f"-s{frame.seed.min()}")]
        style.save(search_figures.maps(runs, first), folder / "maps")


def first_found(frame: pd.DataFrame, variant: str) -> int | None:
    """The first seed of a variant in which conditions 1 to 3 hold without registers."""
    rows = frame[(frame.variant == variant) & (frame.registers == 0)].sort_values("seed")
    held = (row.seed for row in rows.itertuples() if all(getattr(row, c) is True for c in FIRST))
    return next(held, None)


# --- what the template tells


def facts(sweep: Sweep, frame: pd.DataFrame, runs: Path, out: Path) -> dict[str, Any]:
    """Every number of the page."""
    scenes = frame[frame["regime.world"] != "tokens"]
    tokens = frame[frame["regime.world"] == "tokens"]
    seeds = Seeds(frame)
    headline = sweep.variants[sweep.headline]
    mine = frame[frame.variant == sweep.headline]
    return dict(
        sweep=sweep,
        base=sweep.bases["scenes"],
        frame=frame,
        scenes=scenes,
        tokens=tokens,
        rows=scenes.to_dict("records"),
        f=number,
        one=lambda run, key: _cell(frame, run, key),
        ran=seeds.ran,
        over=seeds.over,
        span=seeds.span,
        each=seeds.each,
        of=seeds.of,
        mean=lambda variant, key: seeds.of(variant, 0)[key].mean(),
        count=seeds.count,
        first_three=seeds.first_three,
        needed=seeds.needed,
        waiting=seeds.waiting,
        exchanged=seeds.exchanged,
        steady=lambda: steady(tokens),
        several_seed=first_found(frame, sweep.several),
        settled=seeds.settled,
        copied=seeds.copied,
        none_left=seeds.none_left,
        made_of=seeds.made_of,
        told_by=seeds.told_by,
        lengths=seeds.lengths,
        left_over=seeds.left_over,
        changes=lambda name: changes(sweep, name),
        early=EARLY,
        rooms=rooms(sweep, tokens),
        recipes=recipes(runs.parents[1], out / "emergence" / "recipes.csv"),
        table=[_hypothesis(sweep, frame, name) for name in sweep.hypotheses],
        complete=complete(frame),
        seeds_needed=SEEDS,
        regime=sweep.regime(sweep.headline),
        not_run=style.listing(f"`{name}`" for name in _not_run(sweep, frame)),
        mine_share=mine["redundant/all"].median(),
        regime_chance=mine["class/chance"].median(),
        first_seed=headline.seeds[0],
        **cost(mine[mine.run.isin(sweep.headline_names())], tokens),
        **_doses(sweep),
        **_search(scenes),
    )


def changes(sweep: Sweep, name: str) -> str:
    """The settings in which a variant differs from the one that it extends: `codes` 32."""
    return ", ".join(f"`{key}` {value}" for key, value in sweep.variants[name].change.items())


def _not_run(sweep: Sweep, frame: pd.DataFrame) -> list[str]:
    """Variants of the token world without any run."""
    planned = [v for v in sweep.variants if sweep.settings(v).get("world") == "tokens"]
    return [v for v in planned if not (frame.variant == v).any()]


def cost(mine: pd.DataFrame, tokens: pd.DataFrame) -> dict[str, Any]:
    """Minutes of one core for the headline: the sum over its runs or, where their processor time
    was not kept, by the time that a step took in `timed` other runs; None without any."""
    timed = tokens[tokens.core_seconds.notna()]
    measured = bool(mine.core_seconds.notna().all())
    if measured:
        minutes = mine.core_seconds.sum() / 60
    elif len(timed):
        minutes = mine.steps.sum() * timed.core_seconds.sum() / timed.steps.sum() / 60
    else:
        minutes = None
    return dict(core_minutes=minutes, cost_measured=measured, timed=len(timed))


def rooms(sweep: Sweep, tokens: pd.DataFrame) -> dict[tuple[int, int], str]:
    """(hidden units, symbols) -> the variant that differs from area-short in nothing else, where it
    has been run."""
    short = sweep.regime("area-short")
    cells: dict[tuple[int, int], str] = {}
    for name in sweep.variants:
        regime = sweep.regime(name)
        room = {key: getattr(regime, key, None) for key in ("hidden", "symbols")}
        run = (tokens.variant == name) & (tokens.registers == 0)
        if run.any() and regime == short.model_copy(update=room):
            cells[room["hidden"], room["symbols"]] = name
    return cells


def complete(frame: pd.DataFrame) -> dict[tuple[str, int], tuple[int, int]]:
    """(variant, registers) -> seeds in which all four conditions hold, and seeds tried; where
    they hold in enough. The fourth holds only where the same seed without registers meets 1 to 3.
    """
    asked = frame[frame[CONDITIONS[3]].notna()]
    groups = asked.groupby(["variant", "registers"])[CONDITIONS[3]]
    counts = {key: (int(values.astype(bool).sum()), len(values)) for key, values in groups}
    return {key: both for key, both in counts.items() if both[0] >= SEEDS}


def _search(frame: pd.DataFrame) -> dict[str, Any]:
    """Totals of the search in drawn scenes, for the appendix."""
    first = [frame[c].fillna(False).astype(bool) for c in CONDITIONS]
    widths = sorted(frame["regime.width"].astype(float).astype(int).unique())
    both_kinds = frame["class/redundant"].notna() & frame["class/other"].notna()
    both_kinds &= frame.registers == 0
    taken = frame.store_taken_over
    lost = frame["hidden/other"] - frame["hidden/redundant"] > LOST
    return dict(
        surely=SURELY,
        salient=int((frame["objects/outlier"] > 0.5).sum()),
        second=int(first[0].sum()),
        both=int((first[0] & first[1]).sum()),
        three=int((first[0] & first[1] & first[2]).sum()),
        earlier=int(((frame.layers_with_second_mode > 0) & ~first[0]).sum()),
        stores=frame[both_kinds],
        tried={k: _values(frame[f"regime.{k}"]) for k in VARIED},
        lean=(frame["hidden/all"] - frame["hidden/redundant"])[frame.registers > 0].max(),
        taken=int(taken.fillna(False).astype(bool).sum()),
        asked=int(taken.notna().sum()),
        stored=int(frame.stored[both_kinds].astype(bool).sum()),
        used=int((lost & frame.stored.astype(bool))[both_kinds].sum()),
        lost=LOST,
        most_tokens=int(frame["regime.grid"].astype(float).max() ** 2),
        widths=style.listing(map(str, widths)),
        depths=int(frame["regime.depth"].astype(float).max()),
    )


def _values(column: pd.Series) -> str:
    """The values tried, numbers by their size, words after them by the alphabet."""

    def order(value: str) -> tuple:
        try:
            return 0, float(value), ""
        except ValueError:
            return 1, 0.0, value

    return style.listing(sorted(column.dropna().astype(str).unique(), key=order))


def recipes(results: Path, committed: Path) -> list[dict]:
    """The paper's recipes at the study's scales, folders of `results`: statistics of the patches'
    norms and, where it was measured, top-1 of a linear probe on [CLS], "learned". From
    measurements and, where a scale has none, as they were committed."""
    rows = []
    for scale in SCALES:
        for file in sorted((results / scale).glob("measurements/norms/*.csv")):
            told = pd.read_csv(file).query("question == 'norms'")
            told = told[told.metric.isin(("second_mode", "max_over_median", "kurtosis"))]
            told = told.set_index("metric")
            last = results / scale / "checkpoints" / file.stem / "last.json"
            probe = results / scale / "measurements" / "linear" / file.name
            probed = pd.read_csv(probe).set_index("metric") if probe.is_file() else None
            rows.append(
                dict(
                    scale=scale,
                    backbone=file.stem,
                    steps=json.loads(last.read_text())["step"],
                    ratio=told.value["max_over_median"],
                    kurtosis=told.value["kurtosis"],
                    second_mode=bool(told.value["second_mode"]),
                    why=told.note["second_mode"],
                    learned=None if probed is None else probed.value["top1_held_out"],
                )
            )
    measured = {row["scale"] for row in rows}
    if committed.is_file():
        earlier = pd.read_csv(committed).to_dict("records")
        rows = [row for row in earlier if row["scale"] not in measured] + rows
    if measured:
        write_csv(pd.DataFrame(rows), committed)
    return rows


def _hypothesis(sweep: Sweep, frame: pd.DataFrame, name: str) -> dict:
    """What the runs of one hypothesis show, in counts."""
    variants = [v for v in sweep.variants if sweep.variants[v].hypothesis == name]
    mine = frame[frame.hypothesis == name]
    second, redundant = (mine[c].fillna(False).astype(bool) for c in CONDITIONS[:2])
    return dict(
        name=name,
        tokens=any(sweep.settings(v).get("world") == "tokens" for v in variants),
        planned=sum(len(sweep.names(v)) for v in variants),
        done=len(mine),
        ratio=mine.ratio.max(),
        sinks=mine.redundant_sink.notna().sum(),
        second=second.sum(),
        both=(second & redundant).sum(),
        stored=mine.stored.fillna(False).astype(bool).sum(),
    )


def _doses(sweep: Sweep) -> dict:
    """The variants that differ from ask-narrow in the strength of the plain patches' pattern
    alone, weakest first."""
    names = [v for v in sweep.variants if re.fullmatch(r"ask-narrow-tile\d*", v)]
    tile = {name: sweep.regime(name).tile for name in names}
    names.sort(key=tile.get)
    return dict(tiles=[tile[v] for v in names], tile_runs=[f"{v}-r0-s0" for v in names])


def _cell(frame: pd.DataFrame, run: str, key: str):
    """One number of one run, None where it has not been run."""
    mine = frame[frame.run == run]
    return None if mine.empty else mine.iloc[0][key]
